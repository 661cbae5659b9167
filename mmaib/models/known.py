"""Every class of a base library that mmaib knows by its name.

A class is known by the closest of its bases that has an entry, so subclasses
of known classes need none. Users add theirs with :func:`add`.
"""

from __future__ import annotations

from typing import Any

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

TABLES: dict[str, dict[str, Any]] = {
    'models': MODELS,
    'roi_heads': ROI_HEADS,
    'latent_heads': LATENT_HEADS,
    'predictors': PREDICTORS,
    'outputs': OUTPUTS,
}


def add(table: str, name: str, entry: Any) -> None:
    """Make a class known, or known otherwise.

    Args:
        table: ``'models'``, ``'roi_heads'``, ``'latent_heads'``,
            ``'predictors'`` or ``'outputs'``.
        name: of the class, without its scope.
        entry: as those of the table above.

    Example:
        >>> add('predictors', 'MyHead', {'classifier': ''})
        >>> find('predictors', type('MyHead', (), {}))
        {'classifier': ''}

    Raises:
        ValueError: if there is no such table.
        TypeError: if the entry is of another type than the table's.
    """
    if table not in TABLES:
        raise ValueError(f'table must be one of {[*TABLES]}, got {table!r}')
    kind = type(next(iter(TABLES[table].values())))
    if not isinstance(entry, kind):
        raise TypeError(
            f'{table}[{name!r}] must be a {kind.__name__}, got {entry!r}'
        )
    TABLES[table][name] = entry


def find(table: str, cls: type) -> Any:
    """The entry of a class, by the closest of its bases that has one; None
    without.

    Args:
        table: of :func:`add`.
        cls: of a base library, of a user or of mmaib.
    """
    entries = TABLES[table]
    return next(
        (entries[b.__name__] for b in cls.__mro__ if b.__name__ in entries),
        None,
    )
