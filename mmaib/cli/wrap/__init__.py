"""``mmaib wrap CONFIG --out my_config.py``: attention in any
base config, as a short config over it.

The base model is built and shown an image, to see what its backbone and its
neck give; from that follows where attention can stand. What was written is
loaded and built before it is called done.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmaib.compat import config_name

from ..loading import build_model, read_config
from ..parser import ATTENTIONS
from .look import (
    WrapError,
    folder_scope,
    image_size,
    inner,
    library_of,
    look,
    part_of,
)
from .plan import READOUT, around, plan
from .pure_python import pure_python
from .shapes import Cost, Uninitialised, cost, refusal_in_training
from .write import (
    checked_files,
    hooks,
    own_run,
    schedule,
    tidy,
    written,
)

__all__ = ['WrapError', 'prepare', 'wrap', 'wrap_config']


def wrap(
    original: str,
    out: str | Path,
    attention: str = 'gate',
    where: str | None = None,
    latent: bool = False,
    at: str | None = None,
    size: Sequence[int] | None = None,
    command: str = 'mmaib wrap',
    iterations: int | None = None,
    named: Path | None = None,
    inside: str | None = None,
) -> list[str]:
    """Write a config with attention over a base config.

    Args:
        original: path of a config, or the name of a base library's own,
            ``'mmdet::...'``.
        out: file to write; it must not be there yet.
        attention: ``'gate'``, ``'readout'`` (a gate over the frozen base
            model), ``'aib'`` or ``'aib-qt'``.
        where: ``'before'`` or ``'after'`` the base model's neck; None for
            after a detector's and before any other.
        latent: whether the head's last feature becomes stochastic.
        at: name of a module of the backbone to attend after, in place of a
            neck.
        size: height and width of the image that the model is shown; None
            for what the config says, or as large as is common.
        command: that the file's first line names.
        iterations: how long a readout trains; None for 200.
        inside: see :func:`part_of`.
        named: the file that the work dir has its name of; ``out`` by default.

    Returns:
        what to print.

    Raises:
        ValueError: with the reason, a WrapError unless it is of reading the
            config; nothing is left on the disk.
    """
    out = Path(out)
    if '::' in original and not original.endswith('.py'):
        original += '.py'
    if out.exists():
        raise WrapError(f'{out} is there already: name another file')
    if attention not in ATTENTIONS:
        raise WrapError(f'attention {attention!r}: there are {ATTENTIONS}')
    if at and where:
        raise WrapError('--at: it is a place of its own, without --where')
    if iterations is None:
        iterations = 200
    elif attention != READOUT:
        raise WrapError(
            f'--iterations {iterations}: how long a readout trains, and '
            f'--attention is {attention!r}'
        )
    if iterations < 1:
        raise WrapError(f'--iterations must be >= 1, got {iterations}')
    cfg = read_config(original)
    if not (cfg.get('model') or {}).get('type'):
        raise WrapError(f'model.type is None: {original} has no model')
    scope = {} if cfg.get('default_scope') else folder_scope(cfg)
    cfg.merge_from_dict(scope)
    whole = _built(f'{original} as it is', cfg)
    inside, plain = part_of(cfg, whole, inside)
    base_model = cfg.model[inside] if inside else cfg.model
    height, width = size or image_size(base_model, plain, cfg)
    size = height, width
    seen = look(plain, size)
    path = f'model.{inside}' if inside else 'model'
    made, did = plan(base_model, seen, attention, where, latent, at, path)
    changed = made
    if inside:
        if attention == READOUT:
            raise WrapError(
                f'--attention readout: {type(whole).__name__} trains more '
                f'than its {inside}. Wrap the config of that alone'
            )
        made = around(cfg.model, whole, inside, made)
    default_hooks, said = hooks(cfg, attention, iterations)
    trained: dict[str, Any] = {}
    if attention == READOUT:
        trained = schedule(cfg, iterations, library_of(plain))
    apart = own_run(cfg, original, named or out, attention)
    checks = checked_files(cfg)
    fields: dict[str, Any] = dict(model=made)
    if default_hooks:
        fields['default_hooks'] = default_hooks
    unseeded = {} if cfg.get('randomness') else dict(seed=None)
    fields |= {**scope, **trained, **apart, **checks}
    fields['randomness'] = dict(**unseeded, diff_rank_seed=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if Config._is_lazy_import(str(cfg.filename)):
        text = pure_python(cfg, original, out, command, fields)
    else:
        text = written(cfg, _base(original, out), command, fields)
    out.write_text(tidy(text))
    try:
        model = _built(f'{original} with attention', read_config(str(out)))
        part = inner(model, inside) if inside else model
        costs = seen.cost, cost(part, seen.image)
        if reason := refusal_in_training(part, seen.image):
            raise WrapError(
                f'{type(plain).__name__} gives other features in training '
                f'than in evaluation ({reason}): take --at, a block of '
                f'{[*seen.inside]}'
            )
        lines = [f'wrote {out}', *did]
        if default_hooks:
            types = [hook['type'] for hook in default_hooks.values()]
            lines.append(f'default_hooks: {", ".join(types)}')
        lines += [said] if said else []
        heads = [k for k in base_model if k.endswith('head')]
        left = [k for k in ('backbone', *heads) if k not in changed]
        if trained:
            lines.append(f'{", ".join(trained)}: {iterations} iterations')
        lines += [
            f'{field}: files in the work dir of this config'
            if field.endswith('_evaluator')
            else f"{field}: {value}, not the base config's {cfg[field]}"
            if cfg.get(field)
            else f'{field}: {value}, which is empty'
            for field, value in apart.items()
        ]
        if checks:
            lines.append('train_dataloader: mmaib.CheckFiles, first')
        rest = '' if trained else 'schedule, optimizer, '
        lines.append(
            f"left alone: the base model's {', '.join(left)}, data, {rest}"
            'checkpoint keys'
        )
        lines.append(_price(*costs, size))
    except BaseException:
        out.unlink()
        raise
    return lines


def wrap_config(
    cfg: Config | str | Path, attention: str = 'gate', **options: Any
) -> Config:
    """A config with attention, as `mmaib wrap` writes it, without a file.

    Args:
        cfg: a config, its path, or a name such as ``'mmdet::...'``.
        attention: ``'gate'``, ``'readout'``, ``'aib'`` or ``'aib-qt'``.
        options: ``where``, ``latent``, ``at``, ``size``, ``iterations``,
            ``inside`` of :func:`wrap`.

    Raises:
        WrapError: with the reason.

    Example:
        >>> cfg = mmaib.wrap_config('mmdet::fcos/my_fcos.py', 'gate')
        >>> runner = Runner.from_cfg(cfg)
    """
    with TemporaryDirectory() as folder:
        base = cfg
        if isinstance(cfg, Config):
            base = Path(folder, 'base.py')
            cfg.dump(base)
        own = cfg.filename if isinstance(cfg, Config) else cfg
        named = Path(f'{attention}_{Path(str(own or "config")).stem}.py')
        out = Path(folder, f'{attention}.py')
        wrap(str(base), out, attention, named=named, **options)
        return read_config(str(out))


def _base(original: str, out: Path) -> str:
    """What the written file names the base config by."""
    if '::' in original:
        return config_name(original)
    base = os.path.relpath(original, out.parent)
    if not (out.parent / base).exists():  # '..' of a link leads elsewhere
        base = os.path.abspath(original)
    return base


def _built(what: str, cfg: Any) -> Any:
    """The model of a config.

    Raises:
        WrapError: if it does not build.
    """
    try:
        with Uninitialised():
            return build_model(cfg)
    except Exception as error:
        raise WrapError(
            f'{what} does not build: {type(error).__name__}: {error}'
        ) from error


def _price(before: Cost, after: Cost, size: tuple[int, int]) -> str:
    names = ', '.join(sorted(before.uncounted | after.uncounted))
    return (
        f'parameters: {before.parameters:.2f} M -> {after.parameters:.2f} M; '
        f'multiply-adds of backbone and neck at {size[0]}x{size[1]}: '
        f'{before.macs:.2f} G -> {after.macs:.2f} G'
        f'{names and f", without those of {names}"}'
    )


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Write the config; what is left to do is to say what was done."""
    if args.list:
        families = Path(__file__).with_name('families.txt').read_text()
        return lambda: print(families, end='')
    if not (args.config and args.out):
        raise WrapError('CONFIG and --out FILE.py are needed')
    if not args.out.endswith('.py'):
        raise WrapError(f'--out must be a .py file, got {args.out}')
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    own = ('config', 'out', 'list', 'command')
    options = {k: v for k, v in vars(args).items() if k not in own}
    command = shlex.join(args.command)
    lines = wrap(args.config, args.out, command=command, **options)
    return lambda: print('\n'.join(lines))
