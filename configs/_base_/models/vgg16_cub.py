# The whole convolutional part of VGG16, on ImageNet's weights.
custom_imports = dict(imports=['mmaib'])

checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/vgg/'
    'vgg16_batch256_imagenet_20210208-db26f1a5.pth')
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VGG',
        depth=16,
        with_last_pool=False,
        init_cfg=dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=200,
        in_channels=512,
        mid_channels=[256]))
