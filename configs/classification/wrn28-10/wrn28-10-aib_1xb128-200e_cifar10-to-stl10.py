_base_ = [
    '../../_base_/models/wrn28-10-aib_cifar.py',
    '../../_base_/datasets/cifar10-to-stl10.py',
    '../../_base_/schedules/sgd_200e_wrn.py',
    '../../_base_/default_runtime_cls.py',
]
