"""Small classifiers and inputs for them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from . import CLASSIFICATION, latent_config, loss, predict

__all__ = [
    'CLASSIFICATION',
    'OURS',
    'RESNET',
    'build',
    'combination',
    'config',
    'drawn_logits',
    'inputs',
    'loss',
    'make',
    'predict',
    'shrink',
]


# what one pastes into a config of mmpretrain's
RESNET: dict[str, Any] = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
OURS: dict[str, Any] = dict(
    RESNET,
    type='mmaib.AIBImageClassifier',
    neck=dict(
        type='mmaib.AIBNeck',
        where='before',
        neck=RESNET['neck'],
        in_channels=64,
        bottleneck=dict(quantizer=dict(num_anchors=20)),
    ),
    head=dict(
        type='mmaib.AIBClsHead',
        num_classes=10,
        in_channels=64,
        latent_channels=None,
        decoder='linear',
    ),
)


def make(model: dict = OURS, **fields: Any) -> Any:
    """The small ResNet, with fields of the model overridden."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    classifier = MODELS.build(copy.deepcopy({**model, **fields}))
    classifier.init_weights()
    return classifier


def config(name: str, data: str = 'cifar10') -> Config:
    """mmaib's config of a model, such as ``'wrn28-10-aib-qt'``, and a data
    set."""
    (path,) = CLASSIFICATION.glob(f'*/{name}_*-200e_{data}.py')
    return Config.fromfile(path)


def shrink(cfg: Config, divisor: int = 16) -> Config:
    """Divide every width, but of models with mmpretrain's VGG, which has no
    field for it, and drop pretrained weights."""
    _shrink(cfg.model, 1 if cfg.model.backbone.type == 'VGG' else divisor)
    return cfg


WIDTHS = (
    'base_channels',
    'in_channels',
    'last_conv',
    'latent_channels',
    'out_channels',
    'stem_channels',
)


def _shrink(part: Any, divisor: int) -> None:
    part.pop('init_cfg', None)
    for field, value in part.items():
        if isinstance(value, dict):
            _shrink(value, divisor)
        elif field in ('channels', 'mid_channels') and not isinstance(
            value, int
        ):
            part[field] = [width // divisor for width in value]
        elif field in (*WIDTHS, 'channels'):
            part[field] = max(1, value // divisor)


def combination(mode: str, latent: tuple[str, str], quantized: bool) -> Any:
    """A small VGG of one of ``support.COMBINATIONS``."""
    cfg = config('vgg16-aib-qt' if quantized else 'vgg16-aib')
    encoder, kl = latent
    cfg.model.neck.bottleneck.modulation.mode = mode
    cfg.model.head.latent = latent_config(encoder, kl)
    if mode == 'concat':
        cfg.model.neck.neck.in_channels *= 2
    torch.manual_seed(0)
    return build(shrink(cfg))


def build(cfg: Config) -> Any:
    """The config's classifier, initialised."""
    init_default_scope('mmpretrain')
    if 'data_preprocessor' in cfg:  # as the Runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    classifier = MODELS.build(cfg.model)
    classifier.init_weights()
    return classifier


def drawn_logits(model: Any, images: torch.Tensor) -> torch.Tensor:
    """``(L, N, C)`` of the draws that ``test_draws`` asks for."""
    with model.test_draws.open():
        logits = model.head(model.extract_feat(images))
    return logits.unflatten(0, (-1, len(images)))


def inputs(
    batch: int = 4, size: int = 32, num_classes: int = 10
) -> dict[str, Any]:
    """A batch of random images with random labels."""
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (batch,))
    return dict(
        inputs=list(images),
        data_samples=[DataSample().set_gt_label(int(i)) for i in labels],
    )
