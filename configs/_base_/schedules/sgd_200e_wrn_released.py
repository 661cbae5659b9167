# As in the authors' code: other factors and epochs than in the paper, and
# anchors that hardly move.
_base_ = './sgd_200e_wrn.py'

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'quantizer.anchors': dict(lr_mult=1e-4)}))
param_scheduler = dict(milestones=[60, 120, 160], gamma=0.2)
