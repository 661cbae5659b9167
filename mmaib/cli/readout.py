"""Where does a model that is trained already look, and what is that worth?

    mmaib readout CONFIG CHECKPOINT --out DIR

of a detector, a segmentor or a classifier. It writes a config over the base
config (`mmaib wrap --attention readout`), trains the map alone, the base model
frozen to the bit, and takes the base model's metric on the validation images
with the gate open, which is the base model, with the map, and with the map
mirrored, flattened, shuffled. Running it again skips what is finished and
resumes what was interrupted. DIR, in which nothing else was trained, gets the
config, log, checkpoint, pictures, readout.md, a table of the log, and
report.html; files elsewhere stay as they are.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmaib import preflight
from mmaib.evaluation.nothing_found import completed
from mmaib.files import check_empty
from mmaib.models.base_checkpoint import tensors_of
from mmaib.preflight.checkpoint import read_checkpoint
from mmaib.visualization.tables import (
    METRICS,
    OF_MAPS,
    Column,
    columns_of_maps,
    markdown,
    tabulate,
)
from mmaib.visualization.work_dirs import (
    SCORES_FILE,
    ended_with,
    last_checkpoint,
    read_json,
)

from .loading import read_config
from .parser import parser_of
from .runs import look, refusal, train, write_record
from .wrap import WrapError, wrap

OPEN = 'ablation/open/'
NORM = 'attention/auc_norm'
SHARE = 'train/gate_open'


def check_base(args: argparse.Namespace) -> None:
    """Refuse what the training or its evaluation would stop at.

    Raises:
        ValueError: naming the field.
        FileNotFoundError: if data are not there.
    """
    preflight.check_checkpoint('checkpoint', str(args.checkpoint))
    if reason := refusal(args.out, {}):
        raise ValueError(f'--out {reason}')
    check_empty('--out', args.out, begun=(args.out / 'config').exists())
    cfg = read_config(args.config, args.cfg_options)
    needed = {
        'train_dataloader': 'the map learns from the losses on its images',
        'val_dataloader': 'the metric is computed on its images',
        'val_evaluator': 'maps are compared by its metric',
    }
    if args.pictures:
        needed['test_dataloader'] = 'pictures are of its images; --pictures 0'
    for field, why in needed.items():
        if not cfg.get(field):
            raise ValueError(
                f'{field} is {cfg.get(field)!r} in {args.config}: {why}'
            )
    preflight.check_data(cfg, ('train_dataloader', 'val_dataloader'))
    state = tensors_of(read_checkpoint(str(args.checkpoint)))
    maps = r'bottleneck\.(attention|modulation)\.|ib_attention\.'
    if own := [key for key in state if re.search(maps, key)]:
        raise ValueError(
            f'checkpoint {args.checkpoint} has maps of its own, {own[0]}, '
            "which the readout would start from: give the base model's"
        )


def readout_config(args: argparse.Namespace) -> Path:
    """The readout's config, written if it is not there.

    Raises:
        WrapError: if the base model has no place for attention, or if the
            folder's config is another.
    """
    stem = Path(args.config.rpartition('::')[2]).stem
    # the training leaves the config, in one piece, in its folder
    path = args.out / 'config' / f'readout_{stem}.py'
    # beside the one that is there, as its _base_ is relative
    new = path.with_suffix('.new.py') if path.exists() else path
    new.unlink(missing_ok=True)
    lines = wrap(
        args.config,
        new,
        'readout',
        command=shlex.join(args.command),
        iterations=args.iterations,
    )
    if new == path:
        print('\n'.join(lines), flush=True)
        return path
    # but for the command, and the folder of other trainings than this one
    kept, made = (
        re.sub(r"\./work_dirs/[^/']+", '', p.read_text().partition('\n')[2])
        for p in (path, new)
    )
    new.unlink()
    if kept != made:
        raise WrapError(
            f'--out {args.out} has the readout of another base model or with '
            f'another --iterations, {path}: name another folder'
        )
    return path


def table(log: Mapping[str, float]) -> list[list[str]]:
    """A row for the base model and one for the readout."""
    log = completed(log, [])  # what it lacks, nothing was found for
    base = {
        k.removeprefix(OPEN): v for k, v in log.items() if k.startswith(OPEN)
    }
    metrics = [m for m in METRICS if m in base] or [*base]
    rows = {
        'none: the base model, gate open': {0: {**base, SHARE: 1.0}},
        'the readout': {0: log},
    }
    shown = {k: v for k, v in OF_MAPS.items() if k != NORM}
    columns = [Column(m, m) for m in metrics]
    columns += columns_of_maps(
        rows.values(), metrics, of_maps={SHARE: 'share open', **shown}
    )
    return [
        [name, *cells] for name, _, *cells in tabulate('map', rows, columns)
    ]


def summary(
    log: Mapping[str, float],
    commands: list[str],
    args: argparse.Namespace,
) -> str:
    """Markdown of what came out."""
    note = (
        f'On the validation images, after {args.iterations} iterations with '
        f'the base model frozen, seed {args.seed}. *Lost*: of the first '
        'metric, when every map is mirrored, flattened to its mean, shuffled; '
        'a map that loses nothing is not used; what is lost grows with what '
        'the gate holds back, so compare it at equal bits. *Share open*: mean '
        'of the gate in the last step that was logged.'
    )
    if NORM in log:
        note += (
            f" The features' norm, without a map, has an AUC of "
            f'{log[NORM]:.3f}.'
        )
    title = f'# {Path(args.config).stem}: where it looks'
    lines = [title, '', *markdown(table(log)), '', note, '', 'Commands:']
    lines += ['', *(f'    {command}' for command in commands), '']
    return '\n'.join(lines)


def train_readout(
    config: str | Path, checkpoint: str | Path, out: str | Path, **options: Any
) -> dict[str, float]:
    """Train the map of a data set over a frozen model, as `mmaib readout`.

    Args:
        config: of the model.
        checkpoint: of the model.
        out: folder for config, log, checkpoint, pictures and report.
        options: those of the command, such as ``iterations=200``,
            ``pictures=0``, ``cfg_options=['a.b=c']``.

    Returns:
        the last evaluation: ``coco/bbox_mAP``, ``attention/auc``,
        ``ablation/mirror/coco/bbox_mAP``, ...

    Raises:
        ValueError, FileNotFoundError: naming what does not fit.
        RuntimeError: if the training failed.
    """
    words = [str(config), str(checkpoint), '--out', str(out)]
    args = parser_of('readout').parse_args(words)
    if unknown := options.keys() - vars(args).keys():
        raise ValueError(
            f'train_readout has no {sorted(unknown)}, only '
            f'{sorted(vars(args).keys() - {"config", "checkpoint", "out"})}'
        )
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        words += [f'--{name.replace("_", "-")}', *map(str, values)]
    vars(args).update(options, command=['mmaib', 'readout', *words])
    if prepare(args)():
        raise RuntimeError(f'the training failed: see {out}/stdout.log')
    log = ended_with(args.out)
    assert log is not None  # it is finished
    return log


def prepare(args: argparse.Namespace) -> Callable[[], int]:
    """Check the model, its data and the folder, and write the config; what
    is left to do is to train and to measure."""
    check_base(args)
    return partial(measure, readout_config(args), args)


def measure(config: Path, args: argparse.Namespace) -> int:
    """Train the map and write what it is worth; the exit code."""
    work_dir = args.out
    options = [*args.cfg_options, f'load_from={args.checkpoint}']
    run = config, args.seed, work_dir, options
    if not train(*run):
        print('the training failed: see above', file=sys.stderr)
        return 1
    write_record(*run)
    commands = [shlex.join(args.command)]
    checkpoint = last_checkpoint(work_dir)
    log = ended_with(work_dir)
    assert log is not None  # it is finished
    drawn = read_json(work_dir / 'attention' / SCORES_FILE).get('images')
    look(
        commands,
        work_dir / config.name,  # with the options
        checkpoint,
        work_dir,
        f'Where {Path(args.config).stem} looks',
        0 if drawn else args.pictures,
    )
    text = summary(log, commands, args)
    path = args.out / 'readout.md'
    path.write_text(text)
    print(f'\n{text}\nwritten to {path}')
    print(f'open in a browser: {(work_dir / "report.html").resolve()}')
    return 0
