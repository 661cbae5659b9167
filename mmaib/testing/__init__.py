"""Helpers that tests and benchmarks share."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / 'configs'


def shared_data() -> Path:
    """Folder of real images for tests and studies, by MMAIB_SHARED_DATA."""
    default = REPOSITORY.parent / 'shared' / 'data'
    return Path(os.environ.get('MMAIB_SHARED_DATA', default))
