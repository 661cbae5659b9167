_base_ = [
    '../../_base_/models/vgg16-aib_cifar.py',
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/sgd_200e_vgg.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: the initial weights, the std from the
# map's mean, and the first epoch at 0.01 (MMEngine restores the rate one step
# before `end`)
initial = [
    dict(
        type='Xavier',
        layer='Conv2d',
        distribution='uniform',
        gain=2**0.5),
    dict(type='Uniform', layer='BatchNorm2d', a=0, b=1)]
model = dict(
    backbone=dict(init_cfg=initial),
    neck=dict(
        neck=dict(init_cfg=initial),
        bottleneck=dict(attention=dict(std_source='mean'))))
param_scheduler = [
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=2),
    dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5),
]
