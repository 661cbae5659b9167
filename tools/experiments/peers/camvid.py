_base_ = [
    '../../../configs/sample/camvid/upernet_lite0_1xb4-500_camvid-320x240.py',
]
custom_imports = dict(imports=['mmaib', 'peers'])

model = dict(
    neck=dict(
        type='LevelsWithParts',
        in_channels=[24, 40, 112, 320],
        part=dict(type='CBAM'),
    )
)
