_base_ = [
    '../../_base_/models/wrn28-10_cifar.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/sgd_200e_wrn.py',
    '../../_base_/default_runtime_cls.py',
]

model = dict(head=dict(num_classes=100))
