_base_ = [
    '../../_base_/models/vgg16-gap_cifar.py',
    '../../_base_/datasets/cifar10-to-stl10.py',
    '../../_base_/schedules/sgd_200e_vgg.py',
    '../../_base_/default_runtime_cls.py',
]
