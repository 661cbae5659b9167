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
from study import Arm, conclude, finished, parsed, parser_of_runs, train_arms

from mmaib.visualization.tables import (
    Column,
    Runs,
    cell,
    columns_of_metrics,
    lost,
    markdown,
    metrics_to_tabulate,
    tabulate,
    values,
    with_nothing_found,
)

BITS, AUC = 'attention/bits_per_image', 'attention/auc'
BASE = 'base model'
WEIGHT = 'model.neck.bottleneck.modulation.beta'


def parse_args() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    add = parser.add_argument
    add('config', type=Path)
    weights = [0.001, 0.003, 0.01, 0.03, 0.1]
    add('--weights', nargs='+', type=float, default=weights)
    add(
        '--load-from', metavar='PATTERN',
        help='checkpoint to start from, with {seed} in place of the seed',
    )  # fmt: skip
    add('--baseline', type=Path, help='the base config')
    args = parsed(parser)
    if min(args.weights) <= 0 or len({*args.weights}) < len(args.weights):
        parser.error(f'--weights must be > 0 and differ, got {args.weights}')
    return args


def arms_of(args: argparse.Namespace) -> dict[str, Arm]:
    """By weight, as if each were a config of its own."""
    start = [f'load_from={args.load_from}'] if args.load_from else []
    return {
        f'{weight:g}': Arm(
            f'{args.config.stem}_beta-{weight:g}',
            args.config,
            [f'{WEIGHT}={weight:g}', *start],
        )
        for weight in sorted(args.weights)
    }


def table(rows: Mapping[str, Runs], metric: str) -> list[str]:
    """A row a weight, and what each seed loses to its base model."""
    columns = columns_of_metrics([metric], rows.get(BASE, {}))
    for head, name, digits in (
        ('bits an image', BITS, 0),
        ('AUC', AUC, 3),
        ('AUC of the centre', 'attention/auc_centre', 3),
    ):
        figures = partial(values, name=name)
        columns.append(Column(head, figures, partial(cell, digits=digits)))
    mirrored = partial(lost, metric=metric, change='mirror')
    columns.append(Column('lost by mirror', mirrored))
    return markdown(tabulate('weight', rows, columns))


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
            axis.axhline(mean(base_model), ls='--', color='grey', label=BASE)
            axis.legend()
    return figure


def main() -> None:
    args = parse_args()
    arms = arms_of(args)
    done = args.report_only or train_arms([*arms.values()], args)
    if args.baseline:
        arms = {BASE: Arm(args.baseline.stem, args.baseline), **arms}
    # by the runs of all weights, what each would have
    rows = with_nothing_found(
        {label: finished(arm, args) for label, arm in arms.items()}
    )
    metric = next(iter(metrics_to_tabulate([], rows.values())), 'metric')
    conclude(
        args,
        'rate.md',
        table(rows, metric),
        'Mean ± standard deviation over seeds, last evaluation. What a '
        'mirrored map loses grows with what the gate holds back: compare '
        'it between maps that let as many bits through.',
    )
    base_model = values(rows.pop(BASE, {}), metric)
    if any(values(these, BITS) for these in rows.values()):
        draw(rows, base_model, metric).savefig(args.out / 'rate.png')
    elif any(rows.values()):
        sys.exit(
            f'no {BITS} in the logs: is an mmaib.AttentionEvalHook in the '
            'config, and an mmaib.InformationGate?'
        )
    if not done:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
