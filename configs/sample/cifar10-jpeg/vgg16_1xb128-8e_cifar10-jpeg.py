_base_ = [
    '../../_base_/models/vgg16_cifar.py',
    '../../_base_/datasets/cifar10-jpeg.py',
    '../../_base_/schedules/sgd_8e_vgg.py',
    '../../_base_/default_runtime_cls.py',
]
