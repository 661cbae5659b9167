# Wide ResNet 28-10 (Zagoruyko and Komodakis, 2016).
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmaib.WideResNetBlocks',
        stem=True,
        channels=(160, 320, 640),
        strides=(1, 2, 2),
        last_norm=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=640))
