"""Plug-ins for MMPretrain."""

from .aib_cls_head import AIBClsHead
from .aib_image_classifier import AIBImageClassifier
from .blocks import ResNetStage, VGGBlocks, WideResNetBlocks
from .efficientnet import EfficientNetFeatures, EfficientNetHead

__all__ = [
    'AIBClsHead',
    'AIBImageClassifier',
    'EfficientNetFeatures',
    'EfficientNetHead',
    'ResNetStage',
    'VGGBlocks',
    'WideResNetBlocks',
]
