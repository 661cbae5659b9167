_base_ = [
    '../../_base_/models/wrn28-10-aib-qt_cifar.py',
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/sgd_200e_wrn_released.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: the std from the map's mean, K = 512
model = dict(
    neck=dict(bottleneck=dict(attention=dict(std_source='mean'))),
    head=dict(latent_channels=512))
