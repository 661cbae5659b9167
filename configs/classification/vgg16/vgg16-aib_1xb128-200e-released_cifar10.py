_base_ = [
    '../../_base_/models/vgg16-aib_cifar.py',
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/sgd_200e_vgg_released.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: the std from the map's mean
model = dict(
    neck=dict(bottleneck=dict(attention=dict(std_source='mean'))))
