"""Checkpoints of a readout: what was learned, and which base model it was
learned over, by path and hash, in place of the base model's own tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmaib.files import sha256_of

from .freezing import trainable_prefixes

# in a state dict: a BaseCheckpoint as bytes, so that whatever handles
# tensors handles it
KEY = 'base_checkpoint'


class BaseCheckpoint(NamedTuple):
    """The checkpoint that a frozen base model was loaded from.

    Attributes:
        path: of the file, absolute.
        sha256: of its contents.
    """

    path: str
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> BaseCheckpoint:
        """The path and hash of a file."""
        return cls(str(Path(path).resolve()), sha256_of(path))

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> BaseCheckpoint:
        return cls(*json.loads(bytes(tensor.tolist())))

    def to_tensor(self) -> Tensor:
        text = json.dumps([*self]).encode()
        return torch.tensor([*text], dtype=torch.uint8)

    def tensors(self, instead: str | None = None) -> dict[str, Tensor]:
        """The base model's.

        Args:
            instead: path of the file if it was moved.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it is another file.
        """
        path = Path(instead or self.path)
        if not path.is_file():
            raise FileNotFoundError(
                f"a readout's checkpoint is over the base model of '{path}', "
                'which is not there: put it there, or name it, '
                'model.base_checkpoint=PATH'
            )
        if sha256_of(path) != self.sha256:
            raise ValueError(
                f"'{path}' is not the base model that the readout was "
                'trained over: its SHA-256 is another one than '
                f'{self.sha256[:12]}.... Name that, model.base_checkpoint=PATH'
            )
        return tensors_of(CheckpointLoader.load_checkpoint(str(path), 'cpu'))


def tensors_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """A state dict, alone or as MMEngine saves it, of a bare model."""
    return {
        name.removeprefix('module.'): value
        for name, value in checkpoint.get('state_dict', checkpoint).items()
    }


def learned(
    model: nn.Module, state_dict: dict[str, Any], base: BaseCheckpoint
) -> dict[str, Any]:
    """What of a state dict was learned over a frozen base model, and which
    that is."""
    names = trainable_prefixes(model, 'base')
    own = {k: v for k, v in state_dict.items() if k.startswith(names)}
    return {**own, KEY: base.to_tensor()}


def join(
    state_dict: dict[str, Any], instead: str | None = None, prefix: str = ''
) -> BaseCheckpoint | None:
    """Put the tensors of the base model, if it is named, into a state dict.

    Args:
        state_dict: is changed.
        instead: path of the base model's checkpoint if it was moved.
        prefix: of the keys.

    Returns:
        which one it is; None for a checkpoint with all tensors.

    Raises:
        FileNotFoundError, ValueError: see :meth:`BaseCheckpoint.tensors`.
    """
    named = state_dict.pop(prefix + KEY, None)
    if named is None:
        return None
    base = BaseCheckpoint.from_tensor(named)
    for name, value in base.tensors(instead).items():
        state_dict.setdefault(prefix + name, value)
    return base
