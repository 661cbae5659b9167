# A short schedule for the small segmentors: AdamW, warm-up, cosine to zero.
max_iters = 500
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
    dict(
        type='CosineAnnealingLR', T_max=max_iters, end=max_iters,
        by_epoch=False),
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmaib.SafeCheckpointHook', by_epoch=False, interval=250,
        max_keep_ckpts=1),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    attention=dict(
        type='mmaib.AttentionEvalHook',
        ablations=['mirror', 'flatten', 'shuffle']))
