_base_ = [
    '../../_base_/models/wrn28-10-aib_cifar.py',
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/sgd_200e_wrn_released.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: dropout; of the map, a score a class
# and a batch norm before the sigmoid, the std from the mean; K = 512
model = dict(
    backbone=dict(dropout=0.3),
    neck=dict(
        neck=dict(dropout=0.3),
        bottleneck=dict(
            attention=dict(
                std_source='mean',
                logit_norm='batch',
                mean_trunk=dict(dropout=0.3, last_conv=10)))),
    head=dict(latent_channels=512))
