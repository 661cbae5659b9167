# [RECT] says MobileNetV3 and not which; its features of 960 channels, and a
# linear layer of 512, in place of the 960 to 1280 layer and its dropout.
_base_ = [
    '../../_base_/datasets/oxford_pet_bs32_300.py',
    '../../_base_/schedules/adam_40e_pet.py',
    '../../_base_/default_runtime_cls.py',
]
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='MobileNetV3',
        arch='large',
        out_indices=(16, ),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/mobilenet_v3/convert/mobilenet_v3_large-3ea3c186.pth',
            prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=37,
        in_channels=960,
        mid_channels=[512]))
