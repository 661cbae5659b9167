"""Plug-ins for MMSegmentation."""

from .aib_encoder_decoder import AIBEncoderDecoder
from .aib_uper_head import AIBUPerHead
from .beit import AIBBEiT
from .layer_decay import AIBLayerDecayOptimizerConstructor
from .seg_tta_model import SegTTAModel

__all__ = [
    'AIBBEiT',
    'AIBEncoderDecoder',
    'AIBLayerDecayOptimizerConstructor',
    'AIBUPerHead',
    'SegTTAModel',
]
