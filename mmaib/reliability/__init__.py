"""What makes a training safe: errors before it starts, checkpoints that are
whole and run no code, noise that a resumed training repeats. None of it is
the method."""

from .check_files import CheckFiles
from .finite_check_hook import FiniteCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .step_seed_hook import StepSeedHook

__all__ = [
    'CheckFiles',
    'FiniteCheckHook',
    'SafeCheckpointHook',
    'StepSeedHook',
]
