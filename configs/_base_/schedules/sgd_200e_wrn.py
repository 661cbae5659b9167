# Section 4.1.1 of [AIB] for Wide ResNet.
_base_ = './sgd_200e_vgg.py'

param_scheduler = dict(
    _delete_=True,
    type='MultiStepLR',
    by_epoch=True,
    milestones=[60, 120, 180],
    gamma=0.3)
