"""Checkpoints that are not there, not whole, or another model's."""

from __future__ import annotations

import logging
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from torch import Tensor, nn

from mmaib.models import AuxLossMixin
from mmaib.models.base_checkpoint import KEY, BaseCheckpoint, learned
from mmaib.models.freezing import trainable_prefixes
from mmaib.models.unwrapped import unwrapped

from .checkpoint import read_checkpoint
from .fields import configs_with

OF_BASE = "Take a checkpoint of the config that this one's _base_ is."
OF_CONFIG = 'Take a checkpoint that was trained with this config.'


def check_weights(cfg: Any) -> None:
    """Refuse a config whose initial weights are not where it says, or not
    weights.

    Args:
        cfg: the experiment's config.

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
    named = []
    if not cfg.get('resume'):  # what is resumed is looked at there
        named.append(('load_from', cfg.get('load_from')))
    for field in ('pretrained', 'checkpoint'):
        for path, owner in configs_with(field, cfg.get('model'), 'model'):
            named.append((f'{path}.{field}', owner[field]))
    for field, path in named:
        if isinstance(path, str) and '://' not in path:
            yield field, path


def check_checkpoint(field: str, path: str) -> None:
    """Refuse a local checkpoint that is not whole or would run code.

    Args:
        field: what the user named it by.
        path: of the file; a remote one is not looked at.

    Raises:
        ValueError: naming the field, the file and what is wrong with it.
    """
    if '://' not in path:
        try:
            read_checkpoint(path)
        except ValueError as error:
            raise ValueError(f'{field}: {error}') from error


def take_seed(cfg: Any) -> None:
    """Put the seed of the checkpoint to resume into ``randomness.seed``.

    MMEngine takes it over only when the sampler already has another one, so
    that images of the first steps would be seen again. The checkpoint has
    the seed of rank 0, to which ``diff_rank_seed`` adds the rank, as it did
    when the training began.

    Args:
        cfg: the experiment's config; its Runner must not be built yet.

    Raises:
        FileNotFoundError, ValueError: if the checkpoint cannot be resumed.
    """
    _, read = _resumed(cfg)
    seed = read.get('meta', {}).get('seed')
    if seed is None:
        return
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') not in (None, seed):
        print_log(
            f'randomness.seed={randomness["seed"]} gives way to {seed}, '
            'which the checkpoint to resume began with',
            logger='current',
            level=logging.WARNING,
        )
    cfg.randomness = {**randomness, 'seed': seed}


def check_frozen(cfg: Any, model: nn.Module) -> None:
    """Refuse to freeze a base model that the checkpoint is not of: what it
    lacks would stay at random for good. What learns and is not in it is
    logged.

    Args:
        cfg: the experiment's config.
        model: as the Runner built it; it is given the weights, as the
            Runner will once more.

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
        lines = [f'{name} is not in it' for name in lacking]
        raise ValueError(_of_another(what, lines, OF_BASE))
    line = f"load_from '{path}'"
    if missing:
        line += f'; new, and start anew: {", ".join(missing)}'
    if unused:
        line += f'; in it, and not in the model: {", ".join(unused)}'
    print_log(line, logger='current')


def load_whole(field: str, path: str, model: nn.Module) -> dict[str, Any]:
    """A checkpoint into a model that is to be looked at: nothing of it may
    be missing, or what is seen is a layer that was never trained.

    Args:
        field: what the user named the checkpoint by.
        path: of the file.
        model: as its config builds it.

    Returns:
        What the file holds.

    Raises:
        ValueError: if it is broken, or naming the layers that it lacks or
            that have another shape in it.
    """
    check_checkpoint(field, path)
    what = f"{field} '{path}'"
    read, missing, _ = _load(model, path, what, OF_CONFIG)
    if missing:
        lines = [f'{name} is not in it' for name in missing]
        raise ValueError(_of_another(what, lines, OF_CONFIG))
    return read


def tell_untrained(path: str, model: nn.Module) -> None:
    """Warn, below a test's metrics, where checkpoint and model differ: they
    are of layers that were never trained, or not of those that were.
    MMEngine's own warning stands at the top of a long log.

    Args:
        path: of the checkpoint.
        model: as the Runner tested it.
    """
    bare = unwrapped(model)
    if isinstance(bare, BaseTTAModel):
        bare = bare.module
    what = f"checkpoint '{path}', of the metrics above,"
    try:
        _, missing, unused = _load(bare, path, what, OF_CONFIG)
    except ValueError as error:
        line = str(error)
    else:
        lines = [f'{name} is not in it' for name in missing]
        lines += [f'{name} is only in it' for name in unused]
        if not lines:
            return
        line = _of_another(what, lines, OF_CONFIG)
    print_log(line, logger='current', level=logging.WARNING)


def _load(
    model: nn.Module, path: str, what: str, how: str
) -> tuple[dict[str, Any], list[str], list[str]]:
    """What the file holds, and the keys that it lacks or has beside."""
    read = CheckpointLoader.load_checkpoint(path, 'cpu')
    state = {
        name.removeprefix('module.'): value
        for name, value in read.get('state_dict', read).items()
    }
    try:
        missing, unused = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes, a line each
        lines = [f'{line.strip()}' for line in str(error).splitlines()[1:]]
        raise ValueError(_of_another(what, lines, how)) from error
    return read, missing, unused


def _of_another(what: str, lines: list[str], how: str) -> str:
    more = len(lines) - 12
    return (
        f'{what} is of another architecture:\n  '
        + '\n  '.join(lines[:12])
        + (f'\n  and {more} more' if more > 0 else '')
        + f'\n{how}'
    )


def check_resume(cfg: Any, model: nn.Module) -> None:
    """Refuse to go on from a checkpoint that is broken or another model's.

    MMEngine would start what it does not find in the checkpoint, or finds in
    another shape, from its initialisation, and give it the optimizer's state
    of another parameter.

    Args:
        cfg: the experiment's config.
        model: as the Runner built it.

    Raises:
        FileNotFoundError, ValueError: naming the checkpoint, and its whole
            neighbours or the parameters that differ.
    """
    path, read = _resumed(cfg)
    if not read:
        return
    bare = unwrapped(model)
    saved, own = _tensors(read['state_dict']), _tensors(bare.state_dict())
    named = saved.pop(KEY, None)
    if named is not None:
        # the rest is the base model's, and compared when it is loaded
        base = BaseCheckpoint.from_tensor(named)
        own = learned(bare, own, base)
        del own[KEY]
    buffers = dict(bare.named_buffers())
    differing = [
        *(f'{n} is not in it' for n in own if n not in {*saved, *buffers}),
        *(f'{n} is only in it' for n in saved if n not in own),
        *(
            f'{n} is {tuple(saved[n].shape)} in it, {tuple(t.shape)} here'
            for n, t in own.items()
            if n in saved and saved[n].shape != t.shape
        ),
    ]
    if differing:
        how = (
            'Resume with the config that wrote it, or begin anew with its '
            f'weights: --cfg-options load_from={path}, without --resume and '
            'in another --work-dir.'
        )
        raise ValueError(_of_another(f"resume: '{path}'", differing, how))


def _resumed(cfg: Any) -> tuple[str, dict[str, Any]]:
    """Path and contents of the local checkpoint to resume, if there is one:
    both are empty otherwise."""
    if not cfg.get('resume'):
        return '', {}
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    if path is None or '://' in path:
        return '', {}
    path = osp.expanduser(path)
    if osp.isdir(path):  # DeepSpeed's; MMEngine reads it
        return '', {}
    try:
        if not osp.isfile(path):
            raise FileNotFoundError(f"'{path}' is not there")
        read = read_checkpoint(path)
        if not isinstance(read, dict) or 'state_dict' not in read:
            raise ValueError(f"'{path}' is no checkpoint of a training")
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f'resume: {error}. {_whole_checkpoints(cfg.work_dir)}'
        ) from error
    return path, read


def _tensors(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """Without what modules keep beside them (`get_extra_state`)."""
    return {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}


def _whole_checkpoints(folder: str) -> str:
    """Advice on what one can resume from instead."""
    whole = []
    for path in Path(folder).glob('*.pth'):
        try:
            if 'optimizer' in read_checkpoint(str(path)):
                whole.append(path)
        except ValueError:
            continue
    if not whole:
        return f"No other checkpoint in '{folder}' can be resumed"
    latest = max(whole, key=lambda path: path.stat().st_mtime)
    return f'The latest that is whole: --resume {latest}'
