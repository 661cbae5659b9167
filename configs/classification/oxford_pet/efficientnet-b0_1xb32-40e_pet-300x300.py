# EfficientNet-B0, cut after MBConv block 15, where [RECT] has its attention,
# and a linear layer of 512.
_base_ = [
    '../../_base_/datasets/oxford_pet_bs32_300.py',
    '../../_base_/schedules/adam_40e_pet.py',
    '../../_base_/default_runtime_cls.py',
]
custom_imports = dict(imports=['mmaib'])
checkpoint = 'https://mmassets.onedl.ai/mmclassification/v0/efficientnet/efficientnet-b0_3rdparty_8xb32_in1k_20220119-a7e2a0b1.pth'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmaib.EfficientNetFeatures',
        arch='b0',
        init_cfg=dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone.')),
    neck=dict(
        type='mmaib.EfficientNetHead',
        in_channels=320,
        out_channels=1280,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=checkpoint,
            prefix='backbone.layers.6.')),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=37,
        in_channels=1280,
        mid_channels=[512]))
