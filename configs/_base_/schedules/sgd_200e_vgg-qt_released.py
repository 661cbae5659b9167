# As in the authors' code for -qt: an epoch at 0.001, one at 0.01. Factors
# multiply.
_base_ = './sgd_200e_vgg.py'

param_scheduler = [
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=2),
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=3),
    dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5),
]
