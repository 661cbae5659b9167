# Uncertainty for mmdet's published Faster R-CNN: everything before its head's
# latents frozen, one epoch. Not run.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmaib'])

load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
model = dict(
    type='mmaib.AIBFasterRCNN',
    frozen='features',
    test_draws=dict(
        latent=8, average='probabilities', uncertainty=True),
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(
            type='mmaib.AIBShared2FCBBoxHead',
            latent=dict(beta=0.01, std_shift=1.0))))
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=1,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True),
]
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='mmaib.DetectionCalibrationMetric'),
]
test_evaluator = val_evaluator

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
