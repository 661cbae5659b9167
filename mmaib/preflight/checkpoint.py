"""Read checkpoints without running what is in them.

A pickle may call any function that its writer names. Ours hold tensors and
plain types, MMEngine's its log buffers besides; nothing else is let through.
MMEngine itself asks for the same first, but then loads what it was refused
all the same, or, in its older distribution, cannot read its own log buffers
under torch >= 2.6.
"""

from __future__ import annotations

import os
import re
import zipfile
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as base

# torch's own switches, see torch.load, and what they take for yes
SAFE, TRUSTED = (
    'TORCH_FORCE_WEIGHTS_ONLY_LOAD',
    'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD',
)
_YES = ('1', 'y', 'yes', 'true')
# kinds of numpy types that are numbers or text, not pointers
_KINDS = 'biufcSU'
_NUMBERS = ('?', 'u1', 'u2', 'u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4')
_DTYPES = (*_NUMBERS, 'f8', 'c8', 'c16', 'S1', 'U1')


class _LogBuffer(HistoryBuffer):
    """A log buffer of which a checkpoint gives the numbers, not the methods;
    saved again, it is MMEngine's."""

    def __setstate__(self, state: dict) -> None:
        super().__init__(
            state['_log_history'], state['_count_history'], state['max_length']
        )

    def __reduce__(self) -> tuple:
        numbers = (self._log_history, self._count_history, self.max_length)
        return HistoryBuffer, numbers


class _Array:
    """What the name numpy.ndarray stands for: nothing that can be called on
    bytes of the file."""


def _dtype(name: str, *_: Any) -> np.dtype:
    """A copy of a simple type: of objects, bytes would become pointers."""
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise UnpicklingError(f'GLOBAL numpy.dtype({name!r})')
    return np.dtype(name, copy=True)


def _empty_array(*_: Any) -> np.ndarray:
    """What numpy fills with a state afterwards."""
    return np.empty(0, np.uint8)


def _scalar(dtype: Any, data: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.kind not in _KINDS:
        raise UnpicklingError(f'GLOBAL numpy.scalar of {dtype!r}')
    return np.frombuffer(data, dtype)[0]


def _no_method(*_: Any) -> None:
    """For `getattr`, by which log buffers name their statistics: the true
    one reaches any function from any class."""


def _log_buffers() -> list:
    """Harmless stand-ins for the names that MMEngine's log buffers ask for,
    and the types whose state a file may set."""
    named: list = [
        (_LogBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_no_method, 'builtins.getattr'),
        (_Array, 'numpy.ndarray'),
        (_dtype, 'numpy.dtype'),
        (np.ndarray, 'no name: array'),
    ]
    named += [(type(np.dtype(name)), f'no name: {name}') for name in _DTYPES]
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 and 2
        named += [
            (_empty_array, f'{package}.multiarray._reconstruct'),
            (_scalar, f'{package}.multiarray.scalar'),
        ]
    return named


def _trusted() -> bool:
    return os.environ.get(TRUSTED, '').lower() in _YES


def load_safely() -> None:
    """Make every `torch.load` of this process refuse to run code.

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, torch's own switch, turns that off.
    """
    if _trusted():
        return
    os.environ.pop(TRUSTED, None)
    os.environ[SAFE] = '1'
    torch.serialization.add_safe_globals(_log_buffers())
    # The base library's own list has the true getattr, and removes mmaib's
    # with it.
    if hasattr(base, 'get_torch_safe_globals'):
        base.get_torch_safe_globals = lambda: []


def read_checkpoint(path: str) -> dict[str, Any]:
    """The contents of a local checkpoint, a file that `torch.save` wrote.

    Tensors stay on the disk until they are used, so the file must not be
    written over as long as they are.

    Raises:
        ValueError: if the file is not whole, or asks for code to be run.
    """
    load_safely()
    # files of torch < 1.6 are no archives, which cannot be mapped
    archive = zipfile.is_zipfile(path)
    try:
        found = torch.load(
            path, map_location='cpu', weights_only=not _trusted(), mmap=archive
        )
    except MemoryError:
        raise
    except Exception as error:
        asked = re.search(r'(?<=GLOBAL )\S+', str(error))
        if asked:
            raise ValueError(
                f"'{path}' holds more than tensors and plain types: loading "
                f'it would call {asked[0]}. Take its weights alone, '
                'torch.save(dict(state_dict=...)), or, if you trust where it '
                f'comes from, set {TRUSTED}=1.'
            ) from error
        size = os.path.getsize(path)
        reason = 'cut off, or of another kind'
        if archive:
            reason = f'{type(error).__name__}: {error}'.split('\n')[0]
        raise ValueError(
            f"'{path}' is not a whole checkpoint: {size} bytes, {reason}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"'{path}' is no checkpoint: it holds a {type(found).__name__}, "
            'not a dict of tensors by name'
        )
    return found
