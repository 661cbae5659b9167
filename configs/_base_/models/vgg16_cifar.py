# VGG16 with batch norm for images of 32x32, Table 1 of [AIB]: blocks 1 to 3
# without pooling but at their end, blocks 4 and 5, two more convolutions down
# to 1x1 (which the table leaves out), and the 1x1 convolution.
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmaib.VGGBlocks',
        channels=(64, 128, 256, 512, 512, 512, 512),
        depths=(2, 2, 3, 3, 3, 1, 1),
        pools=(False, False, True, True, True, True, True),
        last_conv=512),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=10,
        in_channels=512,
        mid_channels=[256]))
