# Where mmseg's published BEiT-base UPerNet looks: the model frozen, an
# information gate on its token grids, 8,000 iterations. Not run.
_base_ = 'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py'
custom_imports = dict(imports=['mmaib'])

load_from = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/beit/upernet_beit-base_8x2_640x640_160k_ade20k/upernet_beit-base_8x2_640x640_160k_ade20k-eead221d.pth'
model = dict(
    type='mmaib.AIBEncoderDecoder',
    frozen='base',
    data_preprocessor=dict(test_cfg=dict(size=(640, 640))),
    backbone=dict(type='mmaib.AIBBEiT'),
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        where='before',
        map='shared',
        in_channels=[768, 768, 768, 768],
        bottleneck=dict(
            attention=dict(mean_bias=2.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.3))))
# the gate and its loss fade in over the first half
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=4000)]
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=8000, end=8000, by_epoch=False),
]
train_cfg = dict(max_iters=8000, val_interval=8000)
auto_scale_lr = dict(enable=False, base_batch_size=16)

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook', interval=8000),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
