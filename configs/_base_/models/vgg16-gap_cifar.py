# Blocks 1 to 5, global average pooling and one linear layer (Zhou et al.,
# 2016).
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmaib.VGGBlocks',
        channels=(64, 128, 256, 512, 512),
        depths=(2, 2, 3, 3, 3),
        pools=(False, False, True, True, False)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512))
