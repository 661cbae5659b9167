"""What makes a model of a base library mmaib's: it collects the losses of its
layers, sets how much they sample, freezes what it is asked to; and the parts
that stand in its config."""

from .aib_neck import AIBNeck
from .attended_backbone import build_attended_backbone
from .efficientnet_lite0 import EfficientNetLite0
from .ib_attention import IBAttention
from .mixin import AuxLossMixin
from .with_aux_losses import build_with_aux_losses, with_aux_losses
from .with_latent import build_with_latent

__all__ = [
    'AIBNeck',
    'AuxLossMixin',
    'EfficientNetLite0',
    'IBAttention',
    'build_attended_backbone',
    'build_with_aux_losses',
    'build_with_latent',
    'with_aux_losses',
]
