# Uncertainty for mmseg's published BEiT-base UPerNet: everything before its
# head's latent frozen, 8,000 iterations. Not run.
_base_ = 'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py'
custom_imports = dict(imports=['mmaib'])

load_from = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/beit/upernet_beit-base_8x2_640x640_160k_ade20k/upernet_beit-base_8x2_640x640_160k_ade20k-eead221d.pth'
model = dict(
    type='mmaib.AIBEncoderDecoder',
    frozen='features',
    test_draws=dict(latent=8, average='probabilities', uncertainty=True),
    data_preprocessor=dict(test_cfg=dict(size=(640, 640))),
    backbone=dict(type='mmaib.AIBBEiT'),
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='mean', beta=0.1, std_shift=1.0)))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=8000, end=8000, by_epoch=False),
]
train_cfg = dict(max_iters=8000, val_interval=8000)
auto_scale_lr = dict(enable=False, base_batch_size=16)
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='mmaib.CalibrationMetric'),
]
test_evaluator = val_evaluator

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook', interval=8000),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
