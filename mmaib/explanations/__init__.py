"""What one statement of a trained model rests on: a bottleneck over its
frozen features, what else explains, and how good an explanation is."""

from .bottleneck import BottleneckResult, Settings, per_sample_bottleneck
from .explain import Explanation, explain, explanation_of
from .places import Place, statistics
from .targets import Target

__all__ = [
    'BottleneckResult',
    'Explanation',
    'Place',
    'Settings',
    'Target',
    'explain',
    'explanation_of',
    'per_sample_bottleneck',
    'statistics',
]
