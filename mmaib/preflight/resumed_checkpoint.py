"""The checkpoint that a training resumes: its seed, and whether it fits."""

from __future__ import annotations

import os.path as osp
from pathlib import Path
from typing import Any

from mmengine.runner import find_latest_checkpoint
from torch import Tensor, nn

from mmaib.models.base_checkpoint import KEY, BaseCheckpoint, learned
from mmaib.models.wrapping import unwrapped

from .checkpoint import read_checkpoint
from .fields import warn
from .weights import of_another


def take_seed(cfg: Any) -> None:
    """Put the seed of the checkpoint to resume into ``randomness.seed``,
    before the Runner is built.

    MMEngine takes it over only when the sampler already has another one, so
    that images of the first steps would be seen again. The checkpoint has
    the seed of rank 0, to which ``diff_rank_seed`` adds the rank, as it did
    when the training began.

    Raises:
        FileNotFoundError, ValueError: if the checkpoint cannot be resumed.
    """
    _, read = _resumed(cfg)
    seed = read.get('meta', {}).get('seed')
    if seed is None:
        return
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') not in (None, seed):
        warn(
            f'randomness.seed={randomness["seed"]} gives way to {seed}, '
            'which the checkpoint to resume began with'
        )
    cfg.randomness = {**randomness, 'seed': seed}


def check_resume(cfg: Any, model: nn.Module) -> None:
    """Refuse to go on from a checkpoint that is broken or another model's.

    MMEngine would start what it does not find in the checkpoint, or finds in
    another shape, from its initialisation, and give it the optimizer's state
    of another parameter.

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
    differing = (
        [name for name in own if name not in {*saved, *buffers}],
        [name for name in saved if name not in own],
        [
            f'{n} is {tuple(saved[n].shape)} in it, {tuple(t.shape)} here'
            for n, t in own.items()
            if n in saved and saved[n].shape != t.shape
        ],
    )
    if any(differing):
        how = (
            'Resume with the config that wrote it, or begin anew with its '
            f'weights: --cfg-options load_from={path}, without --resume and '
            'in another --work-dir.'
        )
        raise ValueError(of_another(f"resume: '{path}'", how, *differing))


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
