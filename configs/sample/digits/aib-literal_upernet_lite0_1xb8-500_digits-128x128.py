_base_ = [
    '../../_base_/models/aib_upernet_lite0.py',
    '../../_base_/datasets/digits.py',
    '../../_base_/schedules/adamw_cosine_500_aib.py',
    '../../_base_/default_runtime_seg_cpu.py',
]

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    decode_head=dict(num_classes=2))
custom_hooks = [dict(type='mmaib.AttentionVisHook', interval=20)]
# what a map is held against: the digits
default_hooks = dict(attention=dict(metric=dict(foreground=[1])))
