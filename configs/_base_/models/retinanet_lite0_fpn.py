# A small RetinaNet that trains on a CPU, for images of 256 pixels:
# EfficientNet-Lite0, an FPN of 128 channels from stride 8 on, two
# convolutions a head.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='mmaib.EfficientNetLite0',
        out_indices=(2, 3, 4),
        frozen_stages=2),
    neck=dict(
        in_channels=[40, 112, 320],
        out_channels=128,
        start_level=0,
        num_outs=4),
    bbox_head=dict(
        num_classes=1,
        in_channels=128,
        feat_channels=128,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32, 64])))
