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

# torch's own switches, see torch.load
SAFE, TRUSTED = (
    'TORCH_FORCE_WEIGHTS_ONLY_LOAD',
    'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD',
)
_STATISTICS = ('min', 'max', 'current', 'mean')


def _statistic(owner: Any, name: str) -> Any:
    """What `getattr` is let through for: the methods that log buffers name.

    The true one would reach any function from any class.
    """
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(owner, name)
    raise UnpicklingError(f'getattr({owner!r}, {name!r})')


def _log_buffers() -> list:
    """What MMEngine's log buffers need, and nothing that runs code."""
    import numpy.core.multiarray as multiarray  # numpy 1's name and numpy 2's

    named: list = [HistoryBuffer, np.ndarray, np.dtype]
    named += [type(np.dtype(name)) for name in (bool, 'i4', 'i8', 'f4', 'f8')]
    named.append((_statistic, 'builtins.getattr'))
    for package in ('numpy.core', 'numpy._core'):
        for function in ('_reconstruct', 'scalar'):
            name = f'{package}.multiarray.{function}'
            named.append((getattr(multiarray, function), name))
    return named


def load_safely() -> None:
    """Make every `torch.load` of this process refuse to run code.

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, torch's own switch, turns that off.
    """
    if os.environ.get(TRUSTED, '0') == '0':
        os.environ[SAFE] = '1'
        torch.serialization.add_safe_globals(_log_buffers())


def read_checkpoint(path: str) -> dict[str, Any]:
    """The contents of a local checkpoint.

    Tensors stay on the disk until they are used.

    Args:
        path: of a file that `torch.save` wrote.

    Raises:
        ValueError: if the file is not whole, or asks for code to be run.
    """
    load_safely()
    # files of torch < 1.6 are no archives, which cannot be mapped
    archive = zipfile.is_zipfile(path)
    try:
        return torch.load(
            path,
            map_location='cpu',
            weights_only=SAFE in os.environ,
            mmap=archive,
        )
    except (UnpicklingError, RuntimeError, EOFError, IndexError) as error:
        asked = re.search(r'(?<=GLOBAL )\S+|getattr\(.+\)', str(error))
        if asked:
            raise ValueError(
                f"'{path}' holds more than tensors and plain types: loading "
                f'it would call {asked[0]}. Take its weights alone, '
                'torch.save(dict(state_dict=...)), or, if you trust where it '
                f'comes from, set {TRUSTED}=1.'
            ) from error
        raise ValueError(
            f"'{path}' is not a whole checkpoint: {os.path.getsize(path)} "
            'bytes, cut off or of another kind'
        ) from error
