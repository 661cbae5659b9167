# DeepLabV3+ R50 with one map from all four stages of the backbone, for all of
# them, and the KL on the map itself: the design of the authors' later models.
_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBEncoderDecoder',
    test_draws=dict(attention=4, seed=0),
    neck=dict(
        type='mmaib.AIBNeck',
        map='shared',
        in_channels=[256, 512, 1024, 2048],
        # on the grid of the last stage, 1/8
        map_level=-1,
        bottleneck=dict(
            # of the map's KL: this head has no latent
            beta=1e-3,
            attention=dict(std_source='feature', std_kernel=1),
            modulation=dict(mode='scale_residual', init='paper'))))
auto_scale_lr = dict(enable=False, base_batch_size=16)

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
