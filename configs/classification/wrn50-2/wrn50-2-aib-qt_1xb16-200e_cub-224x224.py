_base_ = [
    '../../_base_/models/wrn50-2-aib-qt_cub.py',
    '../../_base_/datasets/cub_boxes_bs16_224.py',
    '../../_base_/schedules/adam_200e_cub.py',
    '../../_base_/default_runtime_cls.py',
]
