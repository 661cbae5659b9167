# A small Faster R-CNN that trains on a CPU, for images of 256 pixels:
# EfficientNet-Lite0, an FPN of 128 channels from stride 8 on, and an RoI head
# of 256.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='mmaib.EfficientNetLite0',
        out_indices=(2, 3, 4),
        frozen_stages=2),
    neck=dict(in_channels=[40, 112, 320], out_channels=128, num_outs=4),
    rpn_head=dict(
        in_channels=128,
        feat_channels=128,
        anchor_generator=dict(scales=[2, 3], strides=[8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            # the same bits as mmcv's, and a step in two thirds of the time
            roi_layer=dict(use_torchvision=True),
            out_channels=128,
            featmap_strides=[8, 16, 32],
            finest_scale=32),
        bbox_head=dict(in_channels=128, fc_out_channels=256, num_classes=1)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=300),
        rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=300)))
