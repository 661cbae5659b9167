"""What a map is worth: where it looks, and what is lost without it. What a
probability is worth: whether it is true, and whether errors are unsure."""

from .ablation import ablation_metrics
from .attention_metric import AttentionMetric
from .calibration_bins import bin_sums, calibration_errors
from .calibration_metric import CalibrationMetric
from .detection_calibration_metric import DetectionCalibrationMetric
from .scores import (
    catching_rate,
    contrast,
    energy_inside,
    iou,
    missing_rate,
    pointing_hit,
    roc_auc,
)
from .scoring_rules import aurc, scoring_rules

__all__ = [
    'AttentionMetric',
    'CalibrationMetric',
    'DetectionCalibrationMetric',
    'ablation_metrics',
    'aurc',
    'bin_sums',
    'calibration_errors',
    'catching_rate',
    'contrast',
    'energy_inside',
    'iou',
    'missing_rate',
    'pointing_hit',
    'roc_auc',
    'scoring_rules',
]
