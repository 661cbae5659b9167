# An eighth of the channels and of K.
_base_ = [
    '../../_base_/models/vgg16_cifar.py',
    '../../_base_/datasets/cifar10-subset.py',
    '../../_base_/schedules/sgd_16e_vgg.py',
    '../../_base_/default_runtime_cls_cpu.py',
]

model = dict(
    backbone=dict(channels=(8, 16, 32, 64, 64, 64, 64), last_conv=64),
    head=dict(in_channels=64, mid_channels=[32]))
