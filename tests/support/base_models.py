"""Models of the base libraries, out of their own configs, an eighth as wide
and as deep as need be: the matrix of what attention was put into."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from mmaib.compat import register_config_sources

SIZE = 64
DIVISOR = 8
# fields that hold a number of channels, or a list of them
WIDTHS = {
    'c1_channels',
    'c1_in_channels',
    'channels',
    'conv_out_channels',
    'embed_dim',
    'embed_dims',
    'fc_out_channels',
    'feat_channels',
    'feedforward_channels',
    'ham_channels',
    'hidden_dim',
    'in_channels',
    'mid_channels',
    'mla_channels',
    'num_deconv_filters',
    'num_feats',
    'out_channels',
    'proposal_feature_channel',
    'widen_factor',
}
# fields that hold how many, and as many as are enough here
ENOUGH = {
    'max_per_img': 20,
    'nms_pre': 50,
    'num': 16,
    'num_dn_queries': 10,
    'num_layers': 2,
    'num_points': 64,
    'num_proposals': 10,
    'num_queries': 20,
}


@dataclass(frozen=True)
class BaseModel:
    """A model of a base library.

    Attributes:
        config: its config's name, as `mmengine.hub.get_config` takes it.
        changes: what shrinks it beside :func:`shrunk`'s rules, by dotted
            names; applied after them.
        divisor: of the widths.
        batch: images in a step.
    """

    config: str
    changes: dict[str, Any] = field(default_factory=dict)
    divisor: int = DIVISOR
    batch: int = 2

    @property
    def scope(self) -> str:
        return self.config.partition('::')[0]


SHALLOW = {'backbone.depths': [1, 1, 1, 1]}
TRANSFORMER = {'backbone.num_layers': 4, 'backbone.out_indices': (0, 1, 2, 3)}
PLAIN_SLIDE = {'test_cfg': dict(mode='whole')}
SSD_LIKE_WIDTHS = [32, 24, 16]


def detectors() -> dict[str, BaseModel]:
    resnet = {'backbone.base_channels': 8}

    def of(config: str, **changes: Any) -> BaseModel:
        extra = {k.replace('__', '.'): v for k, v in changes.items()}
        return BaseModel(f'mmdet::{config}.py', {**resnet, **extra})

    return {
        'Faster R-CNN': of('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
        'Mask R-CNN': of('mask_rcnn/mask-rcnn_r50_fpn_1x_coco'),
        'Cascade R-CNN': of('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco'),
        'Cascade Mask R-CNN': of(
            'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco'
        ),
        'Libra R-CNN': of('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco'),
        'RetinaNet': of('retinanet/retinanet_r50_fpn_1x_coco'),
        'FCOS': of('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'),
        'ATSS': of('atss/atss_r50_fpn_1x_coco'),
        'PAA': of('paa/paa_r50_fpn_1x_coco'),
        'GFL': of('gfl/gfl_r50_fpn_1x_coco'),
        'VFNet': of('vfnet/vfnet_r50_fpn_1x_coco'),
        'TOOD': of('tood/tood_r50_fpn_1x_coco'),
        'SOLOv2': of(
            'solov2/solov2_r50_fpn_1x_coco',
            mask_head__mask_feature_head__norm_cfg__num_groups=16,
            mask_head__num_grids=[8, 6, 4, 3, 2],
        ),
        'CenterNet': of('centernet/centernet_r18_8xb16-crop512-140e_coco'),
        'RTMDet': BaseModel('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'),
        'YOLOX': BaseModel('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'),
        'YOLOv3': BaseModel(
            'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
            {
                'neck.out_channels': SSD_LIKE_WIDTHS,
                'bbox_head.in_channels': SSD_LIKE_WIDTHS,
                'bbox_head.out_channels': SSD_LIKE_WIDTHS,
            },
            divisor=1,
        ),
        'Deformable DETR': of(
            'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
            bbox_head__embed_dims=32,
        ),
        'DINO': of(
            'dino/dino-4scale_r50_8xb2-12e_coco', bbox_head__embed_dims=32
        ),
        'Sparse R-CNN': of(
            'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
            roi_head__num_stages=2,
        ),
    }


def segmentors() -> dict[str, BaseModel]:
    resnet = {'backbone.base_channels': 8}
    v1c = {**resnet, 'backbone.stem_channels': 8}
    ade = '8xb2-160k_ade20k-512x512'
    return {
        'DeepLabV3+': BaseModel(
            'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_'
            'ade20k-512x512.py',
            v1c,
        ),
        'PSPNet': BaseModel(
            'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', v1c
        ),
        'UPerNet Swin': BaseModel(
            'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_'
            f'{ade}.py',
            SHALLOW,
        ),
        'SegFormer': BaseModel(
            f'mmseg::segformer/segformer_mit-b0_{ade}.py',
            {'backbone.num_layers': [1, 1, 1, 1]},
        ),
        'SETR PUP': BaseModel(
            f'mmseg::setr/setr_vit-l_pup_{ade}.py',
            {**TRANSFORMER, **PLAIN_SLIDE, 'backbone.img_size': (SIZE, SIZE)},
        ),
        'SETR MLA': BaseModel(
            f'mmseg::setr/setr_vit-l_mla_{ade}.py',
            {**TRANSFORMER, **PLAIN_SLIDE, 'backbone.img_size': (SIZE, SIZE)},
        ),
        'UPerNet BEiT': BaseModel(
            'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
            {**TRANSFORMER, **PLAIN_SLIDE, 'backbone.img_size': (SIZE, SIZE)},
        ),
        'OCRNet': BaseModel(
            'mmseg::ocrnet/ocrnet_hr18s_4xb4-80k_ade20k-512x512.py',
            {
                'decode_head.0.channels': 16,
                'decode_head.1.channels': 16,
                'decode_head.1.ocr_channels': 8,
            },
            divisor=1,
        ),
        'Mask2Former': BaseModel(
            f'mmseg::mask2former/mask2former_r50_{ade}.py', resnet
        ),
        'SegNeXt': BaseModel(
            'mmseg::segnext/segnext_mscan-t_1xb16-adamw-160k_'
            'ade20k-512x512.py',
            SHALLOW,
        ),
    }  # fmt: skip


def classifiers() -> dict[str, BaseModel]:
    image = {'backbone.img_size': SIZE}
    return {
        'ResNet': BaseModel(
            'mmpretrain::resnet/resnet18_8xb32_in1k.py',
            {'backbone.base_channels': 8, 'backbone.stem_channels': 8},
        ),
        'Swin': BaseModel(
            'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
            {
                **image,
                'backbone.pad_small_map': True,
                'backbone.arch': dict(
                    embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4]
                ),
            },
        ),
        'ConvNeXt': BaseModel(
            'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
            {
                'backbone.arch': dict(
                    depths=[1, 1, 1, 1], channels=[12, 24, 48, 96]
                )
            },
        ),
        'ViT': BaseModel(
            'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py',
            {
                **image,
                'backbone.arch': dict(
                    embed_dims=96,
                    num_layers=4,
                    num_heads=4,
                    feedforward_channels=96,
                ),
            },
        ),
        'MobileNetV3': BaseModel(
            'mmpretrain::mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py',
            divisor=1,
        ),
        'EfficientNet': BaseModel(
            'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py',
            divisor=1,
        ),
        'RepVGG': BaseModel(
            'mmpretrain::repvgg/repvgg-A0_8xb32_in1k.py',
            {
                'backbone.arch': dict(
                    num_blocks=[1, 1, 1, 1],
                    width_factor=[0.125, 0.125, 0.125, 0.3125],
                    group_layer_map=None,
                    se_cfg=None,
                )
            },
        ),
    }


def rotated() -> dict[str, BaseModel]:
    """Detectors of mmrotate; Rotated FCOS with the losses that a CPU has."""
    narrow = {'backbone.base_channels': 8}
    names = {
        'Rotated RetinaNet': 'rotated_retinanet/rotated-retinanet-rbox-le90',
        'Rotated FCOS': 'rotated_fcos/rotated-fcos-hbox-le90',
        'S2ANet': 's2anet/s2anet-le135',
        'R3Det': 'r3det/r3det-oc',
        'Rotated Faster R-CNN': 'rotated_faster_rcnn/rotated-faster-rcnn-le90',
        'Oriented R-CNN': 'oriented_rcnn/oriented-rcnn-le90',
        'RoI Transformer': 'roi_trans/roi-trans-le90',
    }
    return {
        name: BaseModel(f'mmrotate::{path}_r50_fpn_1x_dota.py', narrow)
        for name, path in names.items()
    }


BASE_MODELS: dict[str, BaseModel] = {
    **detectors(),
    **rotated(),
    **segmentors(),
    **classifiers(),
}


def installed() -> list[str]:
    """The names in ``BASE_MODELS`` whose base library is here; mmrotate need
    not be."""
    return [k for k, v in BASE_MODELS.items() if find_spec(v.scope)]


def config(name: str) -> Config:
    """The base config of a name in ``BASE_MODELS``, its model shrunk."""
    base = BASE_MODELS[name]
    register_config_sources()
    whole = get_config(base.config)
    model = shrunk(copy.deepcopy(whole.model), base)
    kept = {'model': model, 'default_scope': base.scope}
    if 'data_preprocessor' in whole and 'data_preprocessor' not in model:
        kept['model'].data_preprocessor = {  # as the Runner does
            'type': 'ClsDataPreprocessor',
            **whole.data_preprocessor,
        }
    return Config(kept)


def has_unused_parameters(name: str) -> bool:
    """Whether the base config sets ``find_unused_parameters``."""
    register_config_sources()
    return get_config(BASE_MODELS[name].config).get(
        'find_unused_parameters', False
    )


def shrunk(model: ConfigDict, base: BaseModel) -> ConfigDict:
    """A model's config, without pretrained weights and augmentations of a
    batch, as ``base`` says."""
    model.pop('pretrained', None)
    _shrink(model, base.divisor)
    processor = model.get('data_preprocessor', {})
    processor.pop('batch_augments', None)
    if 'size' in processor:
        processor.size = (SIZE, SIZE)
        processor.pop('test_cfg', None)
    if base.scope == 'mmpretrain':
        model.pop('train_cfg', None)  # mixup
    stages = base.changes.get('roi_head.num_stages')
    if stages:
        head = model.roi_head
        head.stage_loss_weights = head.stage_loss_weights[:stages]
        head.bbox_head = head.bbox_head[:stages]
        model.train_cfg.rcnn = model.train_cfg.rcnn[:stages]
    for name, value in base.changes.items():
        *path, last = name.split('.')
        part = model
        for key in path:
            part = part[int(key) if key.isdigit() else key]
        part[last] = value
    return model


def _shrink(part: Any, divisor: int) -> None:
    if isinstance(part, (list, tuple)):
        for item in part:
            _shrink(item, divisor)
    if not isinstance(part, dict):
        return
    if 'Pretrained' in str(part.get('init_cfg')):
        part['init_cfg'] = None
    if 'frozen_stages' in part:
        part['frozen_stages'] = -1
    for name, value in part.items():
        if name in WIDTHS and value != 3:
            part[name] = _divided(value, divisor)
        elif name in ENOUGH and isinstance(value, int):
            part[name] = min(value, ENOUGH[name])
        elif name in ('score_thr', 'conf_thr', 'filter_thr'):
            part[name] = 0.0  # untrained scores are low
        else:
            _shrink(value, divisor)


def _divided(value: Any, divisor: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_divided(item, divisor) for item in value)
    if isinstance(value, float):
        return value / divisor
    return max(1, value // divisor)


def build(cfg: Config) -> Any:
    """The model of a config, initialised, the same each time."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        model = registry.build(copy.deepcopy(cfg.model))
    model.init_weights()
    # TOOD asks for it
    MessageHub.get_current_instance().update_info('epoch', 0)
    return revert_sync_batchnorm(model)


def inputs(cfg: Config, batch: int = 2, size: int = SIZE) -> dict[str, Any]:
    """A batch of random images with what the config's model learns from."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        masks = 'mask_head' in {*cfg.model, *cfg.model.get('roi_head', ())}
        return demo_mm_inputs(
            batch, [(3, size, size)] * batch, with_mask=masks
        )
    if cfg.default_scope == 'mmrotate':
        from mmrotate.testing import demo_mm_inputs

        return demo_mm_inputs(
            batch, [(3, size, size)] * batch, use_box_type=True
        )
    if cfg.default_scope == 'mmseg':
        from . import segmentation

        return segmentation.inputs(((size, size),) * batch)
    from . import classification

    return classification.inputs(batch, size)
