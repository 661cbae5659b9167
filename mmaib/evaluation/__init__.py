"""What a map is worth: where it looks, and what is lost without it."""

from .attention_metric import AttentionMetric
from .causal import causal_drops
from .scores import (
    catching_rate,
    contrast,
    energy_inside,
    fitting_rate,
    missing_rate,
    pointing_hit,
    roc_auc,
)

__all__ = [
    'AttentionMetric',
    'catching_rate',
    'causal_drops',
    'contrast',
    'energy_inside',
    'fitting_rate',
    'missing_rate',
    'pointing_hit',
    'roc_auc',
]
