# The baseline at the paper's size and schedule; mmseg has 640x640 only.
_base_ = [
    '../../_base_/models/upernet_beit-base_512.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/default_runtime_seg.py',
    '../../_base_/schedules/beit_160k.py',
]

train_dataloader = dict(batch_size=2)
