"""The framework's modules, host-neutral. Papers and symbols:
:mod:`mmaib.functional`."""

from .aib_neck import AIBNeck
from .anchor_quantizer import AnchorQuantizer
from .attended_backbone import build_attended_backbone
from .attentive_bottleneck import AttentiveBottleneck
from .capture import CapturedMap, capture_attention, changed_maps
from .encoders import LatentEncoder
from .feature_modulation import FeatureModulation
from .feature_noise import FeatureNoise
from .gaussian_encoder import GaussianEncoder
from .ib_attention import IBAttention
from .information_gate import InformationGate
from .kl_critic import KLCritic
from .noise_encoders import AdditiveNoiseEncoder, PropagatedNoiseEncoder
from .position_wise_attention import PositionWiseAttention
from .rectangular_attention import RectangularAttention
from .variational_attention import VariationalAttention
from .with_aux_losses import build_with_aux_losses
from .with_latent import build_with_latent

__all__ = [
    'AIBNeck',
    'AdditiveNoiseEncoder',
    'AnchorQuantizer',
    'AttentiveBottleneck',
    'CapturedMap',
    'FeatureModulation',
    'FeatureNoise',
    'GaussianEncoder',
    'IBAttention',
    'InformationGate',
    'KLCritic',
    'LatentEncoder',
    'PositionWiseAttention',
    'PropagatedNoiseEncoder',
    'RectangularAttention',
    'VariationalAttention',
    'build_attended_backbone',
    'build_with_aux_losses',
    'build_with_latent',
    'capture_attention',
    'changed_maps',
]
