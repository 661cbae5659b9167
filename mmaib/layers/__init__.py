"""The framework's modules, neutral to base libraries. Papers and symbols:
:mod:`mmaib.functional`."""

from .anchor_quantizer import AnchorQuantizer
from .attentive_bottleneck import AttentiveBottleneck
from .capture import CapturedMap, capture_attention
from .encoders import LatentEncoder
from .feature_modulation import FeatureModulation
from .feature_noise import FeatureNoise
from .gaussian_encoder import GaussianEncoder
from .information_gate import InformationGate
from .kl_critic import KLCritic
from .map_changes import changed_maps
from .map_distribution import MapDistribution
from .modulation import Modulation
from .noise_encoders import AdditiveNoiseEncoder, PropagatedNoiseEncoder
from .position_wise_attention import PositionWiseAttention
from .rectangular_attention import RectangularAttention
from .variational_attention import VariationalAttention

__all__ = [
    'AdditiveNoiseEncoder',
    'AnchorQuantizer',
    'AttentiveBottleneck',
    'CapturedMap',
    'FeatureModulation',
    'FeatureNoise',
    'GaussianEncoder',
    'InformationGate',
    'KLCritic',
    'LatentEncoder',
    'MapDistribution',
    'Modulation',
    'PositionWiseAttention',
    'PropagatedNoiseEncoder',
    'RectangularAttention',
    'VariationalAttention',
    'capture_attention',
    'changed_maps',
]
