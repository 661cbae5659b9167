_base_ = [
    '../../_base_/models/vgg16-dvib_cifar.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/sgd_200e_vgg.py',
    '../../_base_/default_runtime_cls.py',
]

model = dict(head=dict(num_classes=100))
