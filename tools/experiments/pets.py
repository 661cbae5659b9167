"""Train the models of Table 1 of [RECT] on Oxford-IIIT Pet and write it, the
paper's accuracies beside mmaib's.

    python tools/experiments/pets.py --out work_dirs/pets

trains 2 models x 4 arms x 3 divisions x 5 runs, a run at a time, each a
`tools/train.py` in its own process; a run's division of the images has the
run's number as its seed. Running it again skips what is finished and resumes
what was interrupted; `--report-only` writes the table of what there is.
`--models`, `--shares` and `--seeds` take a part of it.
"""

import argparse
import sys
from pathlib import Path

from study import check_runs

from mmaib.cli.runs import read_log, train_all
from mmaib.visualization.tables import cell, markdown

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSIFICATION = CONFIGS / 'classification'

SHARES = {'6:4': 0.6, '7:3': 0.7, '8:2': 0.8}
ARMS = {
    '': 'no attention',
    'pw-': 'position-wise attention',
    'rect-': 'rectangle attention, no EQVC',
    'rect-equi-': 'rectangle attention, with EQVC',
}
# accuracy in % by model and arm, at 6:4, 7:3 and 8:2
PAPER = {
    'mobilenetv3-large': (
        (91.153, 92.344, 92.630),
        (91.525, 92.218, 92.981),
        (91.755, 92.678, 93.185),
        (91.823, 92.822, 93.225),
    ),
    'efficientnet-b0': (
        (93.459, 94.085, 94.577),
        (93.290, 93.922, 94.455),
        (93.811, 94.355, 94.739),
        (93.872, 94.355, 94.915),
    ),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--models', nargs='+', choices=[*PAPER], default=[*PAPER]
    )
    parser.add_argument(
        '--shares', nargs='+', choices=[*SHARES], default=[*SHARES]
    )
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[1, 2, 3, 4, 5]
    )
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='passed on to train.py'
    )
    parser.add_argument(
        '--report-only', action='store_true', help='train nothing'
    )
    args = parser.parse_args()
    check_runs(parser, args)
    return args


def config(model: str, arm: str) -> Path:
    folder = CLASSIFICATION / 'oxford_pet'
    return folder / f'{arm}{model}_1xb32-40e_pet-300x300.py'


def run_dir(out: Path, path: Path, share: str, seed: int) -> Path:
    return out / path.stem / share.replace(':', '-') / f'seed_{seed}'


def options(share: str, seed: int) -> list[str]:
    """Which division of the images."""
    return [
        f'{loader}_dataloader.dataset.{field}={value}'
        for loader in ('train', 'val', 'test')
        for field, value in (('share', SHARES[share]), ('seed', seed))
    ]


def table(args: argparse.Namespace) -> str:
    """Table 1's layout in Markdown."""
    head = ['Model', 'train/val ratio']
    for share in args.shares:
        head += [f'{share}, here', f'{share}, paper']
    lines = [head, ['---'] * len(head)]
    for model in args.models:
        for (arm, label), paper in zip(ARMS.items(), PAPER[model]):
            row = [model, label]
            path = config(model, arm)
            for share in args.shares:
                logs = [
                    read_log(run_dir(args.out, path, share, seed))
                    for seed in args.seeds
                ]
                row.append(cell([x['accuracy/top1'] for x in logs if x], 3))
                row.append(f'{paper[[*SHARES].index(share)]:.3f}')
            lines.append(row)
    command = ' '.join(['python', *sys.argv])
    caption = (
        'Validation accuracy in %, last epoch; mean ± standard deviation over '
        f'the finished of runs {" ".join(map(str, args.seeds))}. EQVC: '
        f'equivariance constraints. Command: `{command}`'
    )
    return '\n'.join([*markdown(lines), '', caption, ''])


def main() -> None:
    args = parse_args()
    runs = [
        (
            path,
            seed,
            run_dir(args.out, path, share, seed),
            [*options(share, seed), *args.cfg_options],
        )
        for seed in args.seeds
        for share in args.shares
        for model in args.models
        for arm in ARMS
        for path in [config(model, arm)]
    ]
    finished = args.report_only or train_all(runs, args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(args)
    (args.out / 'table1.md').write_text(text)
    print(text)
    if not finished:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
