"""Small segmentors and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmaib.compat import register_config_sources

from . import BEIT, DEEPLAB, UPERNET, loss, predict

__all__ = [
    'AIB_QT',
    'BEIT',
    'DEEPLAB',
    'SIZE',
    'UPERNET',
    'build',
    'config',
    'inputs',
    'loss',
    'make',
    'predict',
    'shrink',
]

AIB_QT = UPERNET / f'aib-qt_{BEIT}'
SIZE = (64, 64)


def config(path: Any) -> Config:
    """A config, with `mmseg::` bases resolved."""
    register_config_sources()
    return Config.fromfile(path)


def shrink(cfg: Config, num_classes: int = 5) -> Config:
    """Four layers of 32 channels, images of 64 pixels, the heads of 16."""
    model = cfg.model
    model.pretrained = None
    model.data_preprocessor.update(size=SIZE, test_cfg=dict(size=SIZE))
    neck = model.get('neck', {})
    heads = [model.decode_head]
    if 'auxiliary_head' in model:
        heads.append(model.auxiliary_head)
    if model.backbone.type.endswith('BEiT'):
        model.backbone.update(
            img_size=SIZE,
            embed_dims=32,
            num_layers=4,
            num_heads=2,
            out_indices=(0, 1, 2, 3),
            # at init_values 0.1 a gradient of 1e-3 would look like none
            init_values=1.0,
            drop_path_rate=0.0,
        )
        neck.get('neck', neck).update(embed_dim=32)
        if 'in_channels' in neck:
            neck.in_channels = [32] * 4
        model.decode_head.in_channels = [32] * 4
        model.auxiliary_head.in_channels = 32
    elif model.backbone.type.startswith('ResNet'):
        model.backbone.update(
            depth=18, base_channels=8, zero_init_residual=False
        )
        if 'in_channels' in neck:
            neck.in_channels = [8, 16, 32, 64]
        model.decode_head.update(
            in_channels=64, c1_in_channels=8, c1_channels=8
        )
        model.auxiliary_head.in_channels = 32
    else:
        model.backbone.pretrained = False
    for head in heads:
        head.update(channels=16, num_classes=num_classes)
    if model.test_cfg.get('mode') == 'slide':
        model.test_cfg.update(crop_size=SIZE, stride=(42, 42))
    return cfg


def build(cfg: Config) -> Any:
    """The config's segmentor, initialised, without SyncBN."""
    init_default_scope('mmseg')
    segmentor = MODELS.build(cfg.model)
    segmentor.init_weights()
    return revert_sync_batchnorm(segmentor)


def make(path: Any = AIB_QT, **fields: Any) -> Any:
    """A config's segmentor, small, with fields of its model overridden."""
    cfg = shrink(config(path))
    cfg.merge_from_dict({'model': fields})
    return build(cfg)


def inputs(
    sizes: tuple[tuple[int, int], ...] = ((64, 64), (64, 64)),
    num_classes: int = 5,
    label: int | None = None,
) -> dict:
    """A batch of random images with random labels, or all of one."""
    images, samples = [], []
    for height, width in sizes:
        images.append(
            torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        )
        labels = torch.randint(0, num_classes, (1, height, width))
        if label is not None:
            labels.fill_(label)
        shape = (height, width)
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=labels),
                metainfo=dict(
                    img_shape=shape, ori_shape=shape, pad_shape=shape
                ),
            )
        )
    return dict(inputs=images, data_samples=samples)
