"""MMEngine hooks: measure and draw maps, warm up the price of information,
save checkpoints that are whole."""

from .attention_eval_hook import AttentionEvalHook
from .attention_vis_hook import AttentionVisHook
from .beta_warmup_hook import BetaWarmupHook
from .finite_check_hook import FiniteCheckHook
from .learning_hook import LearningHook
from .monitor_hook import MonitorHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .step_seed_hook import StepSeedHook

__all__ = [
    'AttentionEvalHook',
    'AttentionVisHook',
    'BetaWarmupHook',
    'FiniteCheckHook',
    'LearningHook',
    'MonitorHook',
    'SafeCheckpointHook',
    'StepSeedHook',
]
