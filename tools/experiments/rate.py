"""How many bits does a detector need? Its metric and where it looks, over
what a gate lets through.

    python tools/experiments/rate.py CONFIG --out DIR --seeds 1 2 3 \\
        --weights 0.003 0.01 0.03 0.1 0.3

trains CONFIG, which has an mmaib.InformationGate, with each weight and seed,
as `study.py` does: running it again skips what is finished and resumes
what was interrupted. DIR gets rate.md and rate.png: the base model's metric
and the map's AUC against bits an image. A readout starts from a
checkpoint of its base model, each seed from its own:

    --load-from 'DIR/BASE/seed_{seed}/epoch_12.pth'

`--baseline` names the base config, whose runs study.py left in DIR or whose
records in `--records`; its metric is drawn as a dashed line.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure
from mmengine.config import Config
from study import add_arguments_of_runs, check_runs, read_record

from mmaib import compat
from mmaib.cli.runs import run_dir, train_all
from mmaib.visualization.tables import (
    Runs,
    cell,
    counted,
    lost,
    markdown,
    metrics_to_tabulate,
    paired,
    values,
    with_nothing_found,
)

BITS, AUC = 'attention/bits_per_image', 'attention/auc'
CENTRE = 'attention/auc_centre'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument(
        '--weights',
        nargs='+',
        type=float,
        default=[0.001, 0.003, 0.01, 0.03, 0.1],
    )
    parser.add_argument(
        '--field',
        default='model.neck.bottleneck.modulation.beta',
        help='the weight in the config; default: %(default)s',
    )
    parser.add_argument(
        '--load-from',
        metavar='PATTERN',
        help='checkpoint to start from, with {seed} in place of the seed',
    )
    parser.add_argument('--baseline', type=Path, help='the base config')
    add_arguments_of_runs(parser)
    args = parser.parse_args()
    check_runs(parser, args)
    if min(args.weights) <= 0 or len({*args.weights}) < len(args.weights):
        parser.error(f'--weights must be > 0 and differ, got {args.weights}')
    args.weights.sort()
    if not args.report_only:
        check_field(parser, args)
    return args


def check_field(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """Refuse a field of a part that the config does not have, which each
    training would fail on by itself."""
    compat.register_config_sources()
    part = Config.fromfile(args.config)
    for key in args.field.split('.')[:-1]:
        if key not in part:
            parser.error(f'--field {args.field}: no {key} in {args.config}')
        part = part[key]


def named(args: argparse.Namespace, weight: float) -> Path:
    """The config's path, were each weight a config of its own: by its stem
    the runs are kept."""
    field = args.field.rpartition('.')[2]
    return args.config.with_name(
        f'{args.config.stem}_{field}-{weight:g}{args.config.suffix}'
    )


def runs(args: argparse.Namespace) -> list[tuple]:
    """What :func:`train_all` takes, seed by seed."""
    found = []
    for seed in args.seeds:
        for weight in args.weights:
            options = [*args.cfg_options, f'{args.field}={weight:g}']
            if args.load_from:
                start = args.load_from.replace('{seed}', str(seed))
                options.append(f'load_from={start}')
            name = named(args, weight)
            work_dir = run_dir(args.out, name, seed)
            found.append((args.config, seed, work_dir, options, name.stem))
    return found


def finished(args: argparse.Namespace, name: Path) -> Runs:
    """The metrics of the seeds that are finished."""
    return {
        seed: log
        for seed in args.seeds
        if (log := read_record(args, name, seed))
    }


def table(rows: Mapping[str, Runs], metric: str) -> str:
    """In Markdown, a row a weight, and what each seed loses to its base
    model."""
    head = ['weight', 'seeds', metric, 'paired difference', 'bits an image']
    head += ['AUC', 'AUC of the centre', 'lost by mirror']
    lines = [head, ['---'] * len(head)]
    base = rows.get('base model', {})
    for label, these in rows.items():
        columns = [
            (values(these, metric), 4),
            (paired(these, base, metric) if these is not base else [], 4),
            (values(these, BITS), 0),
            (values(these, AUC), 3),
            (values(these, CENTRE), 3),
            (lost(these, metric, f'ablation/mirror/{metric}'), 4),
        ]
        cells = [
            counted(found, partial(cell, digits=digits), len(these))
            if found
            else '-'
            for found, digits in columns
        ]
        seeds = ', '.join(map(str, these)) or 'not run'
        lines.append([label, seeds, *cells])
    note = 'Mean ± standard deviation over seeds, last evaluation. What a '
    note += 'mirrored map loses grows with what the gate holds back: compare '
    note += 'it between maps that let as many bits through. Command: '
    note += f'`{" ".join(["python", *sys.argv])}`'
    return '\n'.join([*markdown(lines), '', note, ''])


def draw(
    curve: Mapping[str, Runs], base_model: Sequence[float], metric: str
) -> Figure:
    """The metric and, where it was measured, the AUC against bits."""
    panels = {metric: metric, AUC: 'AUC of the map'}
    if not any(values(these, AUC) for these in curve.values()):
        del panels[AUC]
    figure = Figure((4.4 * len(panels), 3.6), 130, layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, title) in zip(axes, panels.items()):
        axis.set(xscale='log', xlabel='bits an image (labels: weight)')
        axis.set_ylabel(title)
        centres = []
        for label, these in curve.items():
            measured = [r for r in these.values() if {BITS, name} <= {*r}]
            if not measured:
                continue
            x, y = ([run[key] for run in measured] for key in (BITS, name))
            centres.append((mean(x), mean(y)))
            # one seed has no bar
            x_bar, y_bar = (stdev(v) if len(v) > 1 else 0 for v in (x, y))
            axis.errorbar(*centres[-1], y_bar, x_bar, 'o', c='C0', capsize=2)
            axis.annotate(
                label, centres[-1], (3, 3), textcoords='offset points',
                fontsize=8, rotation=60,
            )  # fmt: skip
        axis.plot(*zip(*centres), color='C0', alpha=0.5)
        if name == metric and base_model:
            axis.axhline(
                mean(base_model), ls='--', color='grey', label='base model'
            )
            axis.legend()
    return figure


def main() -> None:
    args = parse_args()
    done = args.report_only or train_all(
        runs(args), args.jobs, args.records, args.commit
    )
    curve = {f'{w:g}': finished(args, named(args, w)) for w in args.weights}
    base_model = finished(args, args.baseline) if args.baseline else {}
    # by the runs of all weights, what each would have
    found = with_nothing_found({'base model': base_model, **curve})
    base_model, curve = (
        found['base model'],
        {label: found[label] for label in curve},
    )
    there = metrics_to_tabulate([], [base_model, *curve.values()])
    metric = there[0] if there else 'metric'
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {'base model': base_model, **curve} if args.baseline else curve
    text = table(rows, metric)
    (args.out / 'rate.md').write_text(text)
    print(text)
    if any(values(these, BITS) for these in curve.values()):
        figure = draw(curve, values(base_model, metric), metric)
        figure.savefig(args.out / 'rate.png')
    elif there:
        sys.exit(
            f'no {BITS} in the logs: is an mmaib.AttentionEvalHook in the '
            'config, and an mmaib.InformationGate?'
        )
    if not done:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
