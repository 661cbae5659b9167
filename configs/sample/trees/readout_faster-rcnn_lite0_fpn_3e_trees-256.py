# Where a trained detector looks: the model frozen, an information gate on its
# pyramid. load_from is a checkpoint of faster-rcnn_lite0_fpn_6e_trees-256.py.
_base_ = './gate_faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(
    frozen='base',
    neck=dict(bottleneck=dict(attention=dict(mean_bias=2.0))))
optim_wrapper = dict(optimizer=dict(lr=0.01))
# the gate and its loss fade in over the first half
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=96)]
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True),
]
