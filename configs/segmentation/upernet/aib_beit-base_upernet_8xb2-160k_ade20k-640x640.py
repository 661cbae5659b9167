# On mmseg's own BEiT-base UPerNet at 640x640, which reports 53.08 mIoU. With
# a `mmseg::` base, mmseg's own tools can run it only where that resolves.
_base_ = 'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBEncoderDecoder',
    test_draws=dict(attention=2, latent=1, seed=0),
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
            attention=dict(logit_norm=True),
            quantizer=None)),
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='feature', beta=0.01)))
optim_wrapper = dict(
    constructor='mmaib.AIBLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(
        _delete_=True,
        num_layers=12,
        decay_rate=0.9,
        decay_type='layer_wise',
        custom_keys={'encoder.std': dict(lr_mult=0.01)}))
auto_scale_lr = dict(enable=False, base_batch_size=16)

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
