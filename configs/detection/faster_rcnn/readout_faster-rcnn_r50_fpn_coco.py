# Where mmdet's published Faster R-CNN looks: the model frozen, an information
# gate on its pyramid, one epoch. Not run.
_base_ = './gate_faster-rcnn_r50_fpn_1x_coco.py'

load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
model = dict(
    frozen='base',
    neck=dict(bottleneck=dict(attention=dict(mean_bias=2.0))))
# the gate and its loss fade in over the first half of 7,330 steps
custom_hooks = [
    dict(type='mmaib.BetaWarmupHook', end=3665),
    dict(
        type='mmaib.AttentionEvalHook',
        ablations=['mirror', 'flatten', 'shuffle']),
]
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01, weight_decay=0.05),
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
