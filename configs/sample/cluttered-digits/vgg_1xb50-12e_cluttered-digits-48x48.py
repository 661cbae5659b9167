# Four convolutions and a linear layer: what the maps beside it are compared
# with.
_base_ = [
    '../../_base_/datasets/cluttered-digits.py',
    '../../_base_/schedules/adamw_cosine_12e.py',
    '../../_base_/default_runtime_cls_cpu.py',
]
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmaib.VGGBlocks',
        channels=(16, 32, 64), depths=(1, 1, 2), pools=(True, True, False)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
# a map that moves as fast as the features closes before they distinguish
# digits
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    paramwise_cfg=dict(
        custom_keys={'bottleneck.attention': dict(lr_mult=0.1)}))
train_cfg = dict(val_interval=12)
default_hooks = dict(
    checkpoint=dict(save_best=None, save_optimizer=False),
    attention=dict(type='mmaib.AttentionEvalHook', ablations=['mirror']))
