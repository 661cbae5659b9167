"""Engine hooks that serve the method."""

from .attention_eval_hook import AttentionEvalHook
from .attention_vis_hook import AttentionVisHook
from .beta_warmup_hook import BetaWarmupHook

__all__ = ['AttentionEvalHook', 'AttentionVisHook', 'BetaWarmupHook']
