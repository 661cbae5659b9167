_base_ = [
    '../../_base_/models/retinanet_lite0_fpn.py',
    '../../_base_/datasets/trees_detection.py',
    '../../_base_/schedules/adamw_cosine_6e.py',
    '../../_base_/default_runtime_cpu.py',
]

optim_wrapper = dict(optimizer=dict(lr=5e-4))

# Trees are small: a pyramid from stride 4 on, narrower in exchange.
model = dict(
    backbone=dict(out_indices=(1, 2, 3, 4), frozen_stages=2),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64, num_outs=4),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(strides=[4, 8, 16, 32])))
