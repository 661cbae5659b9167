_base_ = [
    '../_base_/models/faster-rcnn_lite0_fpn.py',
    '../_base_/datasets/trees_detection.py',
    '../_base_/schedules/adamw_cosine_8e.py',
    '../_base_/default_runtime_cpu.py',
]
