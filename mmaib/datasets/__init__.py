"""Data sets: small embedded ones that the sample configs run on, a check of
files as they are read, and in `classification` those of the papers."""

from .check_files import CheckFiles
from .cluttered_digits import ClutteredDigits

__all__ = [
    'CheckFiles',
    'ClutteredDigits',
]
