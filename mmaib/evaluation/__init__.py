"""What a map is worth: where it looks, and what is lost without it."""

from .attention_metric import AttentionMetric
from .causal import causal_drops
from .scores import contrast, energy_inside, pointing_hit, roc_auc

__all__ = [
    'AttentionMetric',
    'causal_drops',
    'contrast',
    'energy_inside',
    'pointing_hit',
    'roc_auc',
]
