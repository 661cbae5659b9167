"""Checkpoints that are not there, not whole, or another model's."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.runner import CheckpointLoader
from torch import nn

from mmaib.models import AuxLossMixin
from mmaib.models.base_checkpoint import tensors_of
from mmaib.models.freezing import trainable_prefixes
from mmaib.models.wrapping import unwrapped

from .checkpoint import read_checkpoint
from .fields import configs_with, named, warn

OF_BASE = "Take a checkpoint of the config that this one's _base_ is."
OF_CONFIG = 'Take a checkpoint that was trained with this config.'


def check_weights(cfg: Any) -> None:
    """Refuse a config whose initial weights are not where it says, or not
    weights.

    Raises:
        FileNotFoundError: naming the field, the file, and what to do.
        ValueError: if the file is not whole, or loading it would run code.
    """
    for field, path in named_weights(cfg):
        path = osp.expanduser(path)
        if osp.exists(path):
            check_checkpoint(field, path)
            continue
        how = 'Put it there'
        if 'beit' in osp.basename(path).lower():
            how = (
                "Make it of BEiT's public weights: python "
                f'tools/model_converters/beit2mmseg.py DOWNLOADED {path}'
            )
        unset = f'--cfg-options {field.removesuffix(".checkpoint")}=None'
        if field == 'load_from':
            unset = 'leave out load_from'
        raise FileNotFoundError(
            f"{field}: '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'). {how}, or, to start without it, {unset}."
        )


def named_weights(cfg: Any) -> Iterator[tuple[str, str]]:
    """Fields and paths of the local files that a config starts from."""
    found = []
    if not cfg.get('resume'):  # what is resumed is looked at there
        found.append(('load_from', cfg.get('load_from')))
    for field in ('pretrained', 'checkpoint'):
        for path, owner in configs_with(field, cfg.get('model'), 'model'):
            found.append((f'{path}.{field}', owner[field]))
    for field, path in found:
        if isinstance(path, str) and '://' not in path:
            yield field, path


def check_checkpoint(field: str, path: str) -> None:
    """Refuse a checkpoint that is not whole or would run code, by the field
    that names it; a remote one is not looked at.

    Raises:
        FileNotFoundError, ValueError: naming the field, the file and what is
            wrong with it.
    """
    if '://' in path:
        return
    if not osp.isfile(osp.expanduser(path)):
        # a path of an address has one slash less
        is_address = path.startswith(('http:/', 'https:/'))
        advice = ': download it first' if is_address else ''
        raise FileNotFoundError(f'{field}: no file {path}{advice}')
    with named(field):
        read_checkpoint(path)


def check_frozen(cfg: Any, model: nn.Module) -> None:
    """Refuse to freeze a base model that the checkpoint is not of: what it
    lacks would stay at random for good. What learns and is not in it is
    logged. The model is given the weights, as the Runner will once more.

    Raises:
        ValueError: if there is no checkpoint to start from, or naming the
            layers that it lacks or that have another shape in it.
    """
    bare = unwrapped(model)
    frozen = bare.frozen if isinstance(bare, AuxLossMixin) else None
    if not frozen or cfg.get('resume'):
        return
    asked, path = f'model.frozen={frozen!r}', cfg.get('load_from')
    if not path:
        if (cfg.get('model') or {}).get('init_cfg'):
            return  # a whole model may be loaded by it
        raise ValueError(
            f'{asked} keeps a trained base model as it is, and there is none: '
            '--cfg-options load_from=CHECKPOINT, of the base config'
        )
    what = f"{asked}: load_from '{path}'"
    _, missing, unused = _load(bare, path, what, OF_BASE)
    names = trainable_prefixes(bare, frozen)
    lacking = [name for name in missing if not name.startswith(names)]
    if lacking:
        raise ValueError(of_another(what, OF_BASE, lacking))
    line = f"load_from '{path}'"
    if missing:
        line += f'; new, and start anew: {", ".join(missing)}'
    if unused:
        line += f'; in it, and not in the model: {", ".join(unused)}'
    print_log(line, logger='current')


def load_whole(field: str, path: str, model: nn.Module) -> dict[str, Any]:
    """A checkpoint into a model that is to be looked at: nothing of it may
    be missing, or what is seen is a layer that was never trained. Returns
    what the file holds.

    Raises:
        ValueError: if it is broken, or naming the layers that it lacks or
            that have another shape in it.
    """
    check_checkpoint(field, path)
    what = f"{field} '{path}'"
    read, missing, _ = _load(model, path, what, OF_CONFIG)
    if missing:
        raise ValueError(of_another(what, OF_CONFIG, missing))
    return read


def warn_untrained(path: str, model: nn.Module) -> None:
    """Warn, below a test's metrics, where checkpoint and model differ: they
    are of layers that were never trained, or not of those that were.
    MMEngine's own warning stands at the top of a long log."""
    bare = unwrapped(model)
    if isinstance(bare, BaseTTAModel):
        bare = bare.module
    what = f"checkpoint '{path}', of the metrics above,"
    try:
        _, missing, unused = _load(bare, path, what, OF_CONFIG)
    except ValueError as error:
        warn(str(error))
        return
    if missing or unused:
        warn(of_another(what, OF_CONFIG, missing, unused))


def _load(
    model: nn.Module, path: str, what: str, how: str
) -> tuple[dict[str, Any], list[str], list[str]]:
    """What the file holds, and the keys that it lacks or has beside."""
    read = CheckpointLoader.load_checkpoint(path, 'cpu')
    try:
        missing, unused = model.load_state_dict(tensors_of(read), strict=False)
    except RuntimeError as error:  # shapes, a line each
        shapes = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(of_another(what, how, shapes=shapes)) from error
    return read, missing, unused


def of_another(
    what: str,
    how: str,
    missing: Iterable[str] = (),
    unused: Iterable[str] = (),
    shapes: Iterable[str] = (),
) -> str:
    """The message about a checkpoint that lacks some keys of a model, has
    others beside, or some in another shape."""
    lines = [f'{name} is not in it' for name in missing]
    lines += [f'{name} is only in it' for name in unused]
    lines += shapes
    if (more := len(lines) - 12) > 0:
        lines[12:] = [f'and {more} more']
    text = '\n  '.join([f'{what} is of another architecture:', *lines])
    return f'{text}\n{how}'
