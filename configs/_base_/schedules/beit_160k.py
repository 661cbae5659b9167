# BEiT's own schedule, which [AIB] follows (Section 4.2.4): lr 1e-3, layer
# decay 0.65. mmseg's beit-base_upernet_8xb2-160k has 3e-5 and 0.9.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmaib.AIBLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(
        num_layers=12, decay_rate=0.65, decay_type='layer_wise'))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(
        type='PolyLR',
        power=1.0,
        begin=1500,
        end=160000,
        eta_min=0.0,
        by_epoch=False,
    )
]
# 8 GPUs with 2 images each
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmaib.SafeCheckpointHook', by_epoch=False, interval=16000),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
