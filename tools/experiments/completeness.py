"""A price for what a readout's gate leaves behind.

    python tools/experiments/completeness.py trees --out work_dirs/trees

An information gate pays for what passes, and nothing for evidence that is
left where it is shut. Here it pays for that too: the base model is shown what
is left, the gate's complement, and `--weight` times what it still finds there
is added to the losses: a detector's losses against an image without objects,
a segmentor's divergence from a uniform prediction. (Masked-out objectives, as
of COMET.)

Readouts with and without that price, over the same base models, at three
weights of the information each, so that they can be compared at equal bits:
the figures of those without are interpolated over the logarithm of the bits,
seed by seed. Resumable, as study.py is.
"""

import copy
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plug_ins import TASKS
from study import (
    BITS,
    CONFIGS,
    Arm,
    conclude,
    finished,
    metrics_to_tabulate,
    parsed,
    parser_of_runs,
    train_arms,
)
from torch import Tensor, nn

from mmaib.cli.loading import read_config
from mmaib.layers import AttentiveBottleneck
from mmaib.layers.map_distribution import MapDistribution
from mmaib.models.detection import AIBFasterRCNN
from mmaib.models.segmentation import AIBEncoderDecoder
from mmaib.registry import MODELS
from mmaib.visualization.tables import (
    Runs,
    columns_of_maps,
    columns_of_metrics,
    difference,
    markdown,
    tabulate,
    with_nothing_found,
)

HERE = Path(__file__).resolve().parent
BETA = 'model.neck.bottleneck.modulation.beta'
FACTORS = (0.3, 1, 3)
ABLATIONS = 'default_hooks.attention.ablations=[mirror,complement]'
CONFIG = """_base_ = {base!r}
custom_imports = dict(imports=['mmaib', 'completeness'])

model = dict(type={kind!r})
"""
AUC, CENTRE = 'attention/auc', 'attention/auc_centre'


@contextmanager
def left_behind(model: nn.Module) -> Iterator[None]:
    """Show a model what its gates, as far as they have faded in, remove."""
    found = [m for m in model.modules() if isinstance(m, AttentiveBottleneck)]
    undo: list[Any] = []
    for bottleneck in found:
        gate: Any = bottleneck.modulation
        strength = gate.strength

        def complement(
            _: nn.Module,
            __: tuple,
            maps: MapDistribution,
            s: Tensor = strength,
        ) -> MapDistribution:
            return maps.changed(lambda a: s * (1 - a), torch.zeros_like)

        hook = bottleneck.attention.register_forward_hook(complement)
        undo += [hook.remove, partial(setattr, gate, 'strength', strength)]
        # another tensor, as backward() reads the one that was there
        gate.strength = torch.ones_like(strength)
        undo.append(partial(setattr, gate, 'paused', gate.paused))
        gate.paused = True
    try:
        yield
    finally:
        for one in undo:
            one()


class Complete:
    """A readout that also pays for what it leaves behind.

    Args:
        completeness: weight of that price.
    """

    def __init__(
        self, *args: Any, completeness: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.completeness = completeness

    def loss(self, inputs: Tensor, samples: list) -> dict[str, Any]:
        losses = super().loss(inputs, samples)  # type: ignore[misc]
        if self.completeness:
            with left_behind(self):  # type: ignore[arg-type]
                rest = self.evidence(inputs, samples)
            losses['loss_rest'] = self.completeness * rest
        return losses

    def evidence(self, inputs: Tensor, samples: list) -> Tensor:
        raise NotImplementedError


@MODELS.register_module(force=True)  # as __main__ too
class CompleteFasterRCNN(Complete, AIBFasterRCNN):
    def evidence(self, inputs: Tensor, samples: list) -> Tensor:
        empty = [copy.copy(sample) for sample in samples]
        for sample in empty:
            sample.gt_instances = sample.gt_instances[:0]
        losses = AIBFasterRCNN.loss(self, inputs, empty)
        return sum(losses['loss_rpn_cls']) + losses['loss_cls']


@MODELS.register_module(force=True)  # as __main__ too
class CompleteEncoderDecoder(Complete, AIBEncoderDecoder):
    def evidence(self, inputs: Tensor, samples: list) -> Tensor:
        logits = self.decode_head.forward(self.extract_feat(inputs))
        from_uniform = logits.logsumexp(1) - logits.mean(1)
        return from_uniform.mean() - math.log(logits.size(1))


def arms_of(task: str, weight: float, out: Path) -> dict[str, list[Arm]]:
    """The base model, and readouts by what they pay for."""
    base, readout = TASKS[task]
    folder = CONFIGS / 'sample' / task
    plain = Arm('base', folder / f'{base.format("")}.py')
    original = folder / f'readout_{readout}.py'
    model = read_config(original).model
    beta = model.neck.bottleneck.modulation.beta
    kind = model.type.replace('AIB', 'Complete')
    path = out / f'{task}.py'
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(base=str(original), kind=kind))

    def arm(factor: float, name: str, price: float) -> Arm:
        options = [
            ABLATIONS,
            f'{BETA}={beta * factor:g}',
            f'model.completeness={price:g}',
        ]
        return Arm(f'{name} x{factor:g}', path, options, start=plain)

    prices = {'readout': 0.0, f'complete {weight:g}': weight}
    return {'base': [plain]} | {
        name: [arm(factor, name, price) for factor in FACTORS]
        for name, price in prices.items()
    }


def at_equal_bits(
    runs: Runs, others: Sequence[Runs], figure: str
) -> list[float]:
    """A figure of runs minus that of others of the same seed, interpolated
    at the bits of the first."""
    found = []
    for seed, run in runs.items():
        points = sorted(
            (math.log(o[seed][BITS]), value_of(o[seed], figure))
            for o in others
            if seed in o
        )
        if len(points) > 1:
            bits, figures = np.array(points).T
            there = float(np.interp(math.log(run[BITS]), bits, figures))
            found.append(value_of(run, figure) - there)
    return found


def value_of(run: Any, figure: str) -> float:
    """Of a log, or the difference of two of its figures: ``'a - b'``."""
    names = figure.split(' - ')
    return run[names[0]] - sum(run[name] for name in names[1:])


def main() -> None:
    parser = parser_of_runs(__doc__)
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('--weight', type=float, default=1.0)
    args = parsed(parser)
    os.environ['PYTHONPATH'] = os.pathsep.join(
        [str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    groups = arms_of(args.task, args.weight, args.out)
    arms = [arm for group in groups.values() for arm in group]
    done = args.report_only or train_arms(arms, args)
    rows = with_nothing_found({a.name: finished(a, args) for a in arms})
    metric = metrics_to_tabulate([], filter(None, rows.values()))[0]
    without = [rows[arm.name] for arm in groups['readout']]
    figures = {
        f'{metric}, at equal bits': metric,
        'AUC': f'{AUC} - {CENTRE}',
        'lost by complement': f'{metric} - ablation/complement/{metric}',
    }
    columns = [
        *columns_of_metrics([metric], rows['base']),
        *columns_of_maps(rows.values(), [metric]),
    ]
    found = tabulate('readout', rows, columns)
    found[0] += figures
    for line, arm in zip(found[1:], arms):
        complete = arm not in groups['base'] + groups['readout']
        line += [
            difference(at_equal_bits(rows[arm.name], without, figure))
            if complete
            else '-'
            for figure in figures.values()
        ]
    conclude(
        args.out / 'table.md',
        markdown(found),
        'Mean ± standard deviation over seeds, last evaluation. The last '
        'columns: minus readouts without the price at equal bits, with 95 % '
        "intervals by Student's t over seeds, a star off zero.",
        done,
    )


if __name__ == '__main__':
    main()
