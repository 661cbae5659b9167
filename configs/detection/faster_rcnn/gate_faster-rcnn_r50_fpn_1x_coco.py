# Ours, no paper's: an information gate on mmdet's Faster R-CNN. What attention
# removes becomes noise, what passes has a price in nats. Not run.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBFasterRCNN',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        bottleneck=dict(
            attention=dict(mean_bias=1.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.02))))
# gate and price fade in over the first half
custom_hooks = [
    dict(type='mmaib.BetaWarmupHook', end=6, by_epoch=True),
    dict(
        type='mmaib.AttentionEvalHook',
        ablations=['mirror', 'flatten', 'shuffle']),
]

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
