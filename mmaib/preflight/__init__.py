"""What can be known to be wrong before a training or a test starts."""

from .data import check_annotations, check_data
from .datasets import check_datasets
from .model import (
    check_collects,
    check_library,
    check_runner,
)
from .resumed_checkpoint import check_resume, take_seed
from .weights import (
    check_checkpoint,
    check_frozen,
    check_weights,
    load_whole,
    named_weights,
    warn_untrained,
)

__all__ = [
    'check_annotations',
    'check_checkpoint',
    'check_collects',
    'check_data',
    'check_datasets',
    'check_frozen',
    'check_library',
    'check_resume',
    'check_runner',
    'check_weights',
    'load_whole',
    'named_weights',
    'take_seed',
    'warn_untrained',
]
