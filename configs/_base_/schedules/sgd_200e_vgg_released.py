# As in the authors' code: the first epoch at 0.01. (MMEngine restores the
# rate one step before `end`.)
_base_ = './sgd_200e_vgg.py'

param_scheduler = [
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=2),
    dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5),
]
