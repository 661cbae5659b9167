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
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmaib.compat import config_name

from ..loading import build_model, read_config
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
    fields_over,
    hooks,
    own_run,
    schedule,
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
    size: tuple[int, int] | None = None,
    command: str = 'mmaib wrap',
    iterations: int = 200,
    inside: str | None = None,
) -> list[str]:
    """Write a config with attention over a base config.

    Args:
        original: path of a config, or the name of a base library's own,
            ``'mmdet::...'``.
        out: file to write; it must not be there yet.
        attention, where, latent, at: see :func:`plan`.
        size: height and width of the image that the model is shown; None
            for what the config says, or as large as is common.
        command: that the file's first line names.
        iterations: how long a readout trains.
        inside: see :func:`part_of`.

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
    cfg = read_config(original)
    if not (cfg.get('model') or {}).get('type'):
        raise WrapError(f'model.type is None: {original} has no model')
    scope = {} if cfg.get('default_scope') else folder_scope(cfg)
    cfg.merge_from_dict(scope)
    whole = _built(f'{original} as it is', cfg)
    inside, plain = part_of(cfg, whole, inside)
    base_model = cfg.model[inside] if inside else cfg.model
    size = size or image_size(base_model, plain, cfg)
    seen = look(plain, size)
    path = f'model.{inside}' if inside else 'model'
    planned = plan(base_model, seen, attention, where, latent, at, path)
    if inside:
        if attention == READOUT:
            raise WrapError(
                f'--attention readout: {type(whole).__name__} trains more '
                f'than its {inside}. Wrap the config of that alone'
            )
        planned = around(cfg.model, whole, inside, planned)
    if iterations < 1:
        raise WrapError(f'--iterations must be >= 1, got {iterations}')
    default_hooks, said = hooks(cfg, attention, iterations)
    trained: dict[str, Any] = {}
    if attention == READOUT:
        trained = schedule(cfg, iterations, library_of(plain))
    apart = own_run(cfg, original, out, attention)
    checks = checked_files(cfg)
    fields = {**scope, **trained, **apart, **checks}
    out.parent.mkdir(parents=True, exist_ok=True)
    fields = fields_over(cfg, planned.model, default_hooks, fields)
    if Config._is_lazy_import(str(cfg.filename)):
        text = pure_python(cfg, original, out, command, fields)
    else:
        text = written(cfg, _base(original, out), command, fields)
    out.write_text(text)
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
        lines = [f'wrote {out}', *planned.did]
        if default_hooks:
            types = [hook['type'] for hook in default_hooks.values()]
            lines.append(f'default_hooks: {", ".join(types)}')
        lines += [said] if said else []
        heads = [k for k in base_model if k.endswith('head')]
        changed = planned.model[inside] if inside else planned.model
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
        out = Path(folder, f'{attention}.py')
        wrap(str(base), out, attention, **options)
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
    lines = wrap(
        args.config,
        args.out,
        args.attention,
        args.where,
        args.latent,
        args.at,
        args.size and tuple(args.size),
        ' '.join(args.command),
        args.iterations,
        args.inside,
    )

    return lambda: print('\n'.join(lines))
