"""Every class of a base library that mmaib knows by its name.

Of :data:`PREDICTORS` and :data:`OUTPUTS` by the closest of its bases that has
an entry, see :func:`find`; of the others by its own. A user's class is added
by assignment: ``known.PREDICTORS['MyHead'] = {'classifier': ''}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Entry = TypeVar('Entry')

# Base models with a class of mmaib's own, which averages samples before the
# base library decodes them.
MODELS: dict[str, str] = {
    'CascadeRCNN': 'mmaib.AIBCascadeRCNN',
    'FasterRCNN': 'mmaib.AIBFasterRCNN',
    'MaskRCNN': 'mmaib.AIBFasterRCNN',
    'EncoderDecoder': 'mmaib.AIBEncoderDecoder',
    'ImageClassifier': 'mmaib.AIBImageClassifier',
}
# RoI heads with a form that averages samples.
ROI_HEADS: dict[str, str] = {
    'CascadeRoIHead': 'mmaib.AIBCascadeRoIHead',
    'StandardRoIHead': 'mmaib.AIBRoIHead',
}
# Heads with a stochastic form that samples several latents.
LATENT_HEADS: dict[str, dict[str, Any]] = {
    'Shared2FCBBoxHead': dict(type='mmaib.AIBShared2FCBBoxHead'),
    'UPerHead': dict(type='mmaib.AIBUPerHead'),
    'LinearClsHead': dict(
        type='mmaib.AIBClsHead', latent_channels=None, decoder='linear'
    ),
}
# Linear predictors of heads: the module's path, which may count from the
# end, and what the key of its KL ends in.
PREDICTORS: dict[str, dict[str, str]] = {
    'BaseDecodeHead': {'conv_seg': ''},
    'RetinaHead': {'retina_cls': '_cls', 'retina_reg': '_reg'},
    'FCOSHead': {'conv_cls': '_cls', 'conv_reg': '_reg'},
    'ATSSHead': {'atss_cls': '_cls', 'atss_reg': '_reg'},
    'GFLHead': {'gfl_cls': '_cls', 'gfl_reg': '_reg'},
    'ConvFCBBoxHead': {'fc_cls': '_cls', 'fc_reg': '_reg'},
    'LinearClsHead': {'fc': ''},
    'StackedLinearClsHead': {'layers.-1.fc': ''},
    'VisionTransformerClsHead': {'layers.head': ''},
}
# How samples of a model without a class above are averaged: ``'pixels'``,
# logits of each pixel; ``'anchors'``, scores and boxes of each position
# before the NMS; ``'set'``, not at all, as a query may match different
# objects in each sample.
OUTPUTS: dict[str, str] = {
    'EncoderDecoder': 'pixels',
    'SingleStageDetector': 'anchors',
    'DetectionTransformer': 'set',
    'MaskFormer': 'set',
    'SparseRCNN': 'set',
}
# Test-time augmentation and visualizers of configs that name none.
TTA_MODELS: dict[str, dict[str, Any]] = {
    'mmdet': dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    'mmseg': dict(type='mmaib.SegTTAModel'),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
}
VISUALIZERS: dict[str, str] = {
    'mmdet': 'DetLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
    'mmpretrain': 'UniversalVisualizer',
}


def find(table: Mapping[str, Entry], cls: type) -> Entry | None:
    """The entry of a class, by the closest of its bases that has one; None
    without.

    Example:
        >>> from collections import Counter
        >>> find({'dict': 'its own', 'object': 'any'}, Counter)
        'its own'
    """
    names = (base.__name__ for base in cls.__mro__)
    return next((table[name] for name in names if name in table), None)
