# mmdet's runtime for a machine without a GPU.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(
        type='mmaib.SafeCheckpointHook', max_keep_ckpts=1, save_best='auto'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'),
    attention=dict(
        type='mmaib.AttentionEvalHook',
        ablations=['mirror', 'flatten', 'shuffle']))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
# Every rank draws its own noise. Here and not in the configs that need it,
# as it changes the order of the data too: baselines must see the same.
randomness = dict(seed=None, diff_rank_seed=True)
