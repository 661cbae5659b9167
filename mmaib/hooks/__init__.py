"""Engine hooks."""

from .attention_vis_hook import AttentionVisHook
from .beta_warmup_hook import BetaWarmupHook
from .finite_check_hook import FiniteCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .step_seed_hook import StepSeedHook

__all__ = [
    'AttentionVisHook',
    'BetaWarmupHook',
    'FiniteCheckHook',
    'SafeCheckpointHook',
    'StepSeedHook',
]
