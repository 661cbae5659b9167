"""Train rows of Table 2 of [AIB] and write it, the paper's errors beside
mmaib's.

    python tools/experiments/table2.py --rows 3 --out work_dirs/table2

trains the two models of line 3 on CIFAR-10 and CIFAR-100, a run at a time,
each a `tools/train.py` in its own process. Running it again skips what is
finished and resumes what was interrupted; `--report-only` writes the table of
what there is. `gap` and `dvib` are rows of Table 5. Without the data sets,
with 10,000 images of CIFAR-10 as files and an eighth of the channels:

    python tools/experiments/table2.py --data cifar10-subset --rows 0 dvib 3 \
        --seeds 1 2 3 --jobs 2 --out work_dirs/cifar10-subset
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from study import check_runs

from mmaib.cli.runs import read_log, train_all
from mmaib.visualization.tables import cell, markdown

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSIFICATION = CONFIGS / 'classification'

FULL = ('cifar10', 'cifar100')
SUBSET = 'cifar10-subset'
MODES = {'⊙⊕': 'scale_residual', '⊙': 'scale', '⊕': 'bias', 'cat': 'concat'}
NOISES = {'Additive': 'additive', 'Propagated': 'propagated'}
CLOSED, ADVERSARIAL = 'Closed form (Eq. (19))', 'Adv. Learning (Eq. (20))'


class Row(NamedTuple):
    """A model of Table 2, as the paper names its parts.

    Attributes:
        line: of the table, or the name of a row of Table 5.
        label: of the model.
        config: mmaib's name of it.
        paper: errors on CIFAR-10 and CIFAR-100, in %.
    """

    line: str
    label: str
    config: str
    backbone: str
    modulation: str
    encoder: str
    kl: str
    paper: tuple[float, float]

    def options(self, data: str) -> list[str]:
        """What the row changes in the config of line 2 or 3."""
        options = []
        if self.modulation not in ('-', '⊙⊕'):
            mode = MODES[self.modulation]
            options.append(f'model.neck.bottleneck.modulation.mode={mode}')
        if self.modulation == 'cat' or self.encoder == 'Propagated':
            channels = 64 if data == SUBSET else 512
            options.append(f'model.neck.neck.in_channels={channels}')
        if self.kl == ADVERSARIAL:
            # any field of it turns the critic on; this is its default
            options.append('model.head.latent.critic.saturating=True')
        if self.encoder in NOISES:
            options += [
                f'model.neck.bottleneck.noise.mode={NOISES[self.encoder]}',
                'model.head.latent.type=mmaib.AdditiveNoiseEncoder',
                'model.head.latent.noise_std=0.0',
            ]
        return options

    def path(self, data: str) -> Path:
        """The config file for a data set."""
        if data == SUBSET:
            return (
                CONFIGS
                / 'sample'
                / f'{self.config}_x0.125_1xb128-16e_{data}.py'
            )
        folder = 'wrn28-10' if self.backbone == 'WRN' else 'vgg16'
        return CLASSIFICATION / folder / f'{self.config}_1xb128-200e_{data}.py'

    def run_dir(self, out: Path, data: str, seed: int) -> Path:
        """Work dir of a run."""
        name = self.path(data).stem
        if self.options(data):
            name = f'line{self.line}_{name}'
        return out / name / f'seed_{seed}'


def rows() -> list[Row]:
    table = [
        Row('0', 'vanilla VGG', 'vgg16', '-', '-', '-', '-', (7.77, 30.62)),
        Row('1', 'vanilla WRN', 'wrn28-10', 'WRN', '-', '-', '-',
            (4.00, 19.25)),
        Row('gap', 'VGG-GAP', 'vgg16-gap', 'VGG', '-', '-', '-',
            (9.87, 31.77)),
        Row('dvib', 'VGG-DVIB', 'vgg16-dvib', 'VGG', '-', 'Gaussian', CLOSED,
            (4.64, 22.88)),
    ]  # fmt: skip
    for line, backbone, modulation, encoder, kl, aib, quantized in (
        ('2', 'WRN', '⊙⊕', 'Gaussian', CLOSED, (3.60, 17.82), (3.43, 17.64)),
        ('3', 'VGG', '⊙⊕', 'Gaussian', CLOSED, (4.28, 21.56), (4.10, 20.87)),
        ('4', 'VGG', '⊙', 'Gaussian', CLOSED, (4.40, 21.74), (4.33, 21.58)),
        ('5', 'VGG', '⊕', 'Gaussian', CLOSED, (4.34, 21.64), (4.25, 21.38)),
        ('6', 'VGG', 'cat', 'Gaussian', CLOSED, (4.39, 21.77), (4.31, 21.55)),
        ('7', 'VGG', '⊙⊕', 'Gaussian', ADVERSARIAL,
         (4.20, 21.60), (4.09, 21.17)),
        ('8', 'VGG', '⊙⊕', 'Additive', ADVERSARIAL,
         (4.29, 21.69), (4.08, 21.46)),
        ('9', 'VGG', '⊙⊕', 'Propagated', ADVERSARIAL,
         (4.28, 21.62), (4.15, 21.50)),
    ):  # fmt: skip
        folder = 'wrn28-10' if backbone == 'WRN' else 'vgg16'
        for suffix, paper in (('aib', aib), ('aib-qt', quantized)):
            table.append(
                Row(
                    line,
                    f'{backbone}-{suffix}',
                    f'{folder}-{suffix}',
                    backbone,
                    modulation,
                    encoder,
                    kl,
                    paper,
                )
            )
    return table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    lines = list(dict.fromkeys(row.line for row in rows()))
    parser.add_argument(
        '--rows',
        nargs='+',
        choices=lines,
        default=lines,
        metavar='LINE',
        help=f'of the table: {" ".join(lines)}; all by default',
    )
    parser.add_argument(
        '--data', nargs='+', choices=[*FULL, SUBSET], default=list(FULL)
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[1])
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--report-only', action='store_true', help='train nothing'
    )
    args = parser.parse_args()
    check_runs(parser, args)
    missing = [
        f'{row.label} has no config for {data}'
        for row in rows()
        for data in args.data
        if row.line in args.rows and not row.path(data).exists()
    ]
    if missing:
        parser.error('; '.join(missing))
    return args


def errors(row: Row, data: str, args: argparse.Namespace) -> list[float]:
    """Test errors of the finished runs, in %."""
    logs = [read_log(row.run_dir(args.out, data, s)) for s in args.seeds]
    return [100 - log['accuracy/top1'] for log in logs if log is not None]


def table(chosen: Sequence[Row], args: argparse.Namespace) -> str:
    """Table 2's layout in Markdown."""
    head = ['No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types']
    head.append('KL Loss Eva.')
    for data in args.data:
        head.append(f'{data}, here')
        if data in FULL:
            head.append(f'{data}, paper')
    lines = [head, ['---'] * len(head)]
    counts = set()  # of finished runs
    for row in chosen:
        cells = [row.line, row.label, row.backbone, row.modulation]
        cells += [row.encoder, row.kl]
        for data in args.data:
            found = errors(row, data, args)
            counts.add(len(found))
            cells.append(cell(found, 2))
            if data in FULL:
                cells.append(f'{row.paper[FULL.index(data)]:.2f}')
        lines.append(cells)
    caption = 'Test error in %, last epoch'
    if counts != {0}:
        caption += f'; seeds {" ".join(map(str, args.seeds))}'
    if len(args.seeds) > 1:
        caption += ', mean ± standard deviation'
    if not counts <= {0, len(args.seeds)}:
        caption += ' of those that are finished'
    if SUBSET in args.data:
        caption += (
            f'. {SUBSET}: 10,000 training and 2,000 test images of CIFAR-10, '
            'an eighth of the channels and of K, 16 epochs'
        )
    command = ' '.join(['python', *sys.argv])
    return '\n'.join(
        [
            *markdown(lines),
            '',
            f'{caption}. Command: `{command}`',
            '',
        ]
    )


def main() -> None:
    args = parse_args()
    chosen = [row for row in rows() if row.line in args.rows]
    runs = [
        (
            row.path(data),
            seed,
            row.run_dir(args.out, data, seed),
            row.options(data),
        )
        for seed in args.seeds
        for row in chosen
        for data in args.data
    ]
    finished = args.report_only or train_all(runs, args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(chosen, args)
    (args.out / 'table2.md').write_text(text)
    print(text)
    if not finished:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
