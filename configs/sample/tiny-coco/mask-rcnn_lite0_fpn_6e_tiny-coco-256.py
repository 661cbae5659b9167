# Instance segmentation of people on 50 images of COCO: it shows masks, it
# measures nothing.
_base_ = [
    '../../_base_/models/faster-rcnn_lite0_fpn.py',
    '../../_base_/datasets/tiny-coco_person_instance.py',
    '../../_base_/schedules/adamw_cosine_6e.py',
    '../../_base_/default_runtime_cpu.py',
]

model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(
                type='RoIAlign',
                output_size=14,
                sampling_ratio=0,
                use_torchvision=True),
            out_channels=128,
            featmap_strides=[8, 16, 32],
            # an outline of a person of 64 pixels needs more than the 4x4
            # positions that the boxes' 32 leaves it
            finest_scale=128),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=2,
            norm_cfg=dict(type='GN', num_groups=16),
            in_channels=128,
            conv_out_channels=64,
            num_classes=1,
            loss_mask=dict(
                type='CrossEntropyLoss', use_mask=True, loss_weight=1.0))),
    train_cfg=dict(rcnn=dict(mask_size=28, sampler=dict(num=64))),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)))
# 26 images have to teach the heads, not to change ImageNet's features
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
