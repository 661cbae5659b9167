# An eighth of the channels and of K.
_base_ = [
    '../../_base_/models/vgg16-aib_cifar.py',
    '../../_base_/datasets/cifar10-subset.py',
    '../../_base_/schedules/sgd_16e_vgg.py',
    '../../_base_/default_runtime_cls_cpu.py',
]

model = dict(
    backbone=dict(channels=(8, 16, 32)),
    neck=dict(
        neck=dict(in_channels=32, channels=(64, 64, 64, 64), last_conv=64)),
    head=dict(in_channels=64, latent_channels=32))
