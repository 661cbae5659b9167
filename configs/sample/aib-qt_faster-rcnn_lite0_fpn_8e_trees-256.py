_base_ = [
    '../_base_/models/aib-qt_faster-rcnn_lite0_fpn.py',
    '../_base_/datasets/trees_detection.py',
    '../_base_/schedules/adamw_cosine_8e.py',
    '../_base_/default_runtime_cpu.py',
]

custom_hooks = [dict(type='mmaib.AttentionVisHook', interval=8)]
# AdamW's step does not shrink with the gradient: at the full rate the map
# saturates within an epoch.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'bottleneck.attention': dict(lr_mult=0.1)}))
