# Where a trained segmentor looks: the model frozen, an information gate on its
# backbone's features. load_from is a checkpoint of
# upernet_lite0_1xb8-500_digits-128x128.py.
_base_ = './gate_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(
    frozen='base',
    neck=dict(
        bottleneck=dict(
            attention=dict(mean_bias=2.0), modulation=dict(beta=0.3))))
# the gate and its loss fade in over the first half
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=100)]
max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
    dict(
        type='CosineAnnealingLR', T_max=max_iters, end=max_iters,
        by_epoch=False),
]
