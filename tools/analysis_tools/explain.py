"""Where does a model that is trained already look, and what is that worth?

    python tools/analysis_tools/explain.py HOST_CONFIG CHECKPOINT --out DIR

of a detector, a segmentor or a classifier. It writes a config over the host's
(`mmaib wrap --attention readout`), trains the map alone, the host frozen to
the bit, and takes the host's metric on the validation images with the gate
open, which is the host, with the map, and with the map mirrored, flattened,
shuffled. Running it again skips what is finished and resumes what was
interrupted. DIR, in which nobody else has trained, gets the config, log,
checkpoint, pictures, explain.md, a table of the log, and report.html; files
elsewhere stay as they are.

With the package grad-cam (`pip install grad-cam`) the table has Grad-CAM's map
in the same place: the scores of the map that was learned, the highest where
Grad-CAM is highest, so that both let as much through.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from os.path import relpath
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from mmaib import compat
from mmaib.reliability import preflight
from mmaib.reliability.launch import device_argument, load_safely
from mmaib.wrap import WrapError, wrap
from mmaib.wrap.look import load as load_host

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import study
from analysis_tools import grad_cam
from analysis_tools.attention import load, metric_of
from analysis_tools.image_sources import evaluation
from steps import ROOT, last_checkpoint, look, options_of, run

OPEN = 'causal/open/'
NORM = 'attention/auc_norm'
NOT_RUN = 'not run'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help="the host's, or mmdet::...")
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--iterations', type=int, default=200, help='default: %(default)s'
    )
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument(
        '--pictures', type=int, default=16, help='default: %(default)s'
    )
    parser.add_argument(
        '--grad-cam', action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument('--device', type=device_argument, default=get_device())
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='over the config of the readout, such as\n'
        'model.neck.bottleneck.modulation.beta=0.1 or\n'
        "default_hooks.attention.metric.foreground='[1]' of a segmentor",
    )
    args = parser.parse_args()
    if args.pictures < 0:
        parser.error(f'--pictures must be >= 0, got {args.pictures}')
    if not args.checkpoint.is_file():
        parser.error(f'checkpoint: no file {args.checkpoint}')
    return args


def check_host(args: argparse.Namespace) -> None:
    """Refuse what the training or its evaluation would stop at.

    Raises:
        ValueError: naming the field.
        FileNotFoundError: if data are not there.
    """
    preflight.check_checkpoint('checkpoint', str(args.checkpoint))
    if reason := study.refusal(args.out, {}):
        raise ValueError(f'--out {reason}')
    cfg = load_host(args.config)
    cfg.merge_from_dict(options_of(args.cfg_options))
    needed = {
        'train_dataloader': 'the map learns from the losses on its images',
        'val_dataloader': "the host's metric is taken on its images",
        'val_evaluator': "the host's metric is what a map is worth",
    }
    if args.pictures:
        needed['test_dataloader'] = 'pictures are of its images; --pictures 0'
    for field, why in needed.items():
        if not cfg.get(field):
            raise ValueError(
                f'{field} is {cfg.get(field)!r} in {args.config}: {why}'
            )
    preflight.check_data(cfg, ('train_dataloader', 'val_dataloader'))


def readout_config(args: argparse.Namespace) -> Path:
    """The config over the host's, written anew if it is not there.

    Raises:
        WrapError: if the host has no place for attention, or if the folder's
            config is another.
    """
    stem = Path(args.config.rpartition('::')[2]).stem
    # the training leaves the config, in one piece, in its folder
    path = args.out / 'config' / f'readout_{stem}.py'
    # beside the one that is there, as its _base_ is relative
    new = path.with_suffix('.new.py') if path.exists() else path
    new.unlink(missing_ok=True)
    lines, _ = wrap(
        args.config,
        new,
        'readout',
        command=shlex.join(['python', *sys.argv]),
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
            f'--out {args.out} has the readout of another host or with '
            f'another --iterations, {path}: name another folder'
        )
    return path


def of_grad_cam(
    config: Path, checkpoint: Path, args: argparse.Namespace
) -> dict[str, float] | str:
    """What Grad-CAM's map is worth, kept beside the checkpoint, or why that
    was not measured."""
    if not args.grad_cam:
        return '--no-grad-cam'
    kept = checkpoint.with_name('grad_cam.json')
    if kept.exists():
        return json.loads(kept.read_text())
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options_of(args.cfg_options))
    model, _ = load(cfg, str(checkpoint), args.device)
    if reason := grad_cam.why_not(model):
        return reason
    print("\nGrad-CAM's map in the place of the gate's", flush=True)
    try:
        found = grad_cam.measured(
            model, *evaluation(cfg, 'val'), study.CHANGES, metric_of(cfg)
        )
    except grad_cam.NoGradientError as error:
        return str(error)
    kept.write_text(json.dumps(found, indent=1))
    return found


def table(
    log: Mapping[str, float], cam: Mapping[str, float] | str
) -> list[list[str]]:
    """Of the host, of the readout and of Grad-CAM's map."""
    host = {
        k.removeprefix(OPEN): v for k, v in log.items() if k.startswith(OPEN)
    }
    metrics = [m for m in study.METRICS if m in host] or [*host]
    of_maps = [m for m in study.OF_MAPS if m in log and m != NORM]
    first = next(iter(metrics), '')
    drops = [f'causal/{change}/{first}' for change in study.CHANGES]
    head = ['map', *metrics]
    head += [f'lost by {change}' for change in study.CHANGES]
    head += ['share open', *(study.OF_MAPS[m] for m in of_maps)]
    rows = [head, ['---'] * len(head)]

    def add(name: str, found: Mapping[str, float], share: str) -> None:
        # a detector that finds nothing has no metric
        row = [name]
        row += [study.cell([found[m]]) if m in found else '-' for m in metrics]
        row += [
            study.cell([found[first] - found[drop]])
            if first in found and drop in found
            else '-'
            for drop in drops
        ]
        row.append(share)
        for m in of_maps:
            digits = 0 if 'bits' in m else 3
            row.append(study.cell([found[m]], digits) if m in found else '-')
        rows.append(row)

    add('none: the host, gate open', host, '1.000')
    share = study.cell([log['train/gate_open']], 3)
    add('the readout', log, share)
    if isinstance(cam, str):
        rows.append(['Grad-CAM', NOT_RUN, *[''] * (len(head) - 2)])
    else:
        add('Grad-CAM', cam, 'as the readout')
    return rows


def summary(
    log: Mapping[str, float],
    cam: Mapping[str, float] | str,
    commands: list[str],
    args: argparse.Namespace,
) -> str:
    """Markdown of what came out."""
    lines = study.markdown(table(log, cam))
    note = [
        '',
        'On the validation images, after '
        f'{args.iterations} iterations with the host frozen, seed '
        f'{args.seed}. *Lost*: of the first metric, when every map is '
        'mirrored, flattened to its mean, shuffled; a map that loses nothing '
        'carries nothing. *Share open*: mean of the gate in the last step '
        'that was logged.',
    ]
    if NORM in log:
        note[-1] += (
            f" The features' norm, without a map, has an AUC of "
            f'{log[NORM]:.3f}.'
        )
    if isinstance(cam, str):
        note += ['', f'Grad-CAM: {NOT_RUN}, {cam}.']
    else:
        note[-1] += (
            " *Grad-CAM*: the readout's scores, image by image and level by "
            'level, in the order that Grad-CAM gives the positions.'
        )
    note += ['', 'Commands:', '', *(f'    {command}' for command in commands)]
    return '\n'.join(
        [f'# {Path(args.config).stem}: where it looks', '', *lines, *note, '']
    )


def main() -> None:
    args = parse_args()
    compat.register_config_sources()
    load_safely()
    try:
        check_host(args)
        config = readout_config(args)
    except (WrapError, ValueError, FileNotFoundError) as error:
        sys.exit(f'explain: {error}')
    if args.grad_cam and (missing := grad_cam.why_not_at_all()):
        print(f'Grad-CAM: {NOT_RUN}, {missing}', flush=True)
    work_dir = args.out
    options = [*args.cfg_options, f'load_from={args.checkpoint}']
    if not study.train_all([(config, args.seed, work_dir, options)], 1):
        sys.exit('the training failed: see above')
    commands = [shlex.join(['python', *sys.argv])]
    checkpoint = last_checkpoint(work_dir)
    cam = of_grad_cam(config, checkpoint, args)
    log = study.read_log(work_dir)
    assert log is not None  # it is finished
    drawn = (work_dir / 'attention' / 'scores.json').exists()
    look(
        partial(run, env={'OMP_NUM_THREADS': '1'}),
        commands,
        work_dir / config.name,  # with the options
        checkpoint,
        work_dir,
        f'Where {Path(args.config).stem} looks',
        0 if drawn else args.pictures,
        relpath(ROOT / 'tools'),
    )
    text = summary(log, cam, commands, args)
    (args.out / 'explain.md').write_text(text)
    print(f'\n{text}\nwritten to {args.out / "explain.md"}')
    print(f'open in a browser: {(work_dir / "report.html").resolve()}')


if __name__ == '__main__':
    main()
