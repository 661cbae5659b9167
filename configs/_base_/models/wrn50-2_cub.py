# Wide ResNet 50-2, on ImageNet's weights.
custom_imports = dict(imports=['mmaib'])

checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/wrn/'
    'wide-resnet50_3rdparty_8xb32_in1k_20220304-66678344.pth')
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3, ),
        stem_channels=64,
        base_channels=128,
        expansion=2,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=200, in_channels=2048))
