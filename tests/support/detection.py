"""Small detectors and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from . import COCO, loss, predict

__all__ = [
    'COCO',
    'aib_config',
    'build',
    'detector',
    'inputs',
    'loss',
    'noisy_detector',
    'plain_config',
    'predict',
    'shrink',
]


def plain_config() -> Config:
    """mmdet's own Faster R-CNN R50-FPN."""
    return get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')


def aib_config(name: str = 'aib-qt') -> Config:
    """mmaib's COCO config of that name, such as ``'aib'``."""
    return Config.fromfile(COCO / f'{name}_faster-rcnn_r50_fpn_1x_coco.py')


def shrink(cfg: Config) -> Config:
    """ResNet-18, 32 channels, a few proposals: seconds instead of minutes."""
    model = cfg.model
    model.backbone.update(depth=18, init_cfg=None, frozen_stages=-1)
    fpn = model.neck.get('neck', model.neck)
    fpn.update(in_channels=[64, 128, 256, 512], out_channels=32)
    model.rpn_head.update(in_channels=32, feat_channels=32)
    model.roi_head.bbox_roi_extractor.out_channels = 32
    model.roi_head.bbox_head.update(
        in_channels=32, fc_out_channels=64, num_classes=5
    )
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=100, max_per_img=50)
    model.train_cfg.rcnn.sampler.num = 32
    # Untrained scores are low; keep some detections to compare.
    model.test_cfg.rcnn.score_thr = 0.0
    return cfg


def build(cfg: Config) -> Any:
    """The config's detector, initialised."""
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    return detector


def detector(name: str = 'aib-qt', **options: Any) -> Any:
    """mmaib's small detector, to the paper's letter, with fields of its model
    overridden."""
    cfg = shrink(aib_config(f'{name}-literal'))
    if 'test_draws' in options:  # replaced, not merged
        cfg.model.test_draws = options.pop('test_draws')
    cfg.merge_from_dict({f'model.{k}': v for k, v in options.items()})
    return build(cfg)


def noisy_detector(draws: int, seed: int = 0) -> Any:
    """One whose drawn maps differ enough to be seen."""
    test_draws = dict(attention=draws, latent=2, seed=seed)
    model = detector(test_draws=test_draws)
    torch.nn.init.constant_(model.neck.bottleneck.attention.std_conv.bias, 4.0)
    return model


def inputs(
    sizes: tuple[tuple[int, int], ...] = ((128, 160), (96, 120)),
    num_boxes: int | None = None,
) -> dict:
    """A batch of random images with random boxes."""
    return demo_mm_inputs(
        len(sizes),
        [(3, *size) for size in sizes],
        num_classes=5,
        num_items=None if num_boxes is None else [num_boxes] * len(sizes),
    )
