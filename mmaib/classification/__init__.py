"""Plug-ins for MMPretrain."""

from .aib_cls_head import AIBClsHead
from .aib_image_classifier import AIBImageClassifier
from .blocks import ResNetStage, VGGBlocks, WideResNetBlocks
from .datasets import STL10, SVHN, CropToBox, CUBWithBoxes, OxfordPetSplits
from .efficientnet import EfficientNetFeatures, EfficientNetHead

__all__ = [
    'STL10',
    'SVHN',
    'AIBClsHead',
    'AIBImageClassifier',
    'CUBWithBoxes',
    'CropToBox',
    'EfficientNetFeatures',
    'EfficientNetHead',
    'OxfordPetSplits',
    'ResNetStage',
    'VGGBlocks',
    'WideResNetBlocks',
]
