_base_ = [
    '../../_base_/models/aib_upernet_lite0.py',
    '../../_base_/datasets/camvid.py',
    '../../_base_/schedules/adamw_cosine_500_aib.py',
    '../../_base_/default_runtime_seg_cpu.py',
]

model = dict(data_preprocessor=dict(size=(240, 320)))
# what a map is held against: signs, cars, pedestrians, bicyclists
default_hooks = dict(attention=dict(metric=dict(foreground=[6, 8, 9, 10])))
