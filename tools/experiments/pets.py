"""Train the models of Table 1 of [RECT] on Oxford-IIIT Pet and write it, the
paper's accuracies beside mmaib's.

    python tools/experiments/pets.py --out work_dirs/pets

trains 2 models x 4 arms x 3 divisions x 5 runs, a run at a time, as
`study.py` does; a run's division of the images has the run's number as its
seed. `--report-only` writes the table of what there is. `--models`,
`--shares` and `--seeds` take a part of it.
"""

from collections.abc import Sequence

from study import (
    CONFIGS,
    Arm,
    PaperRow,
    conclude,
    paper_table,
    parsed,
    parser_of_runs,
    train_arms,
)

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


def arm_of(model: str, arm: str, share: str) -> Arm:
    """One model at one division, which each seed makes anew."""
    name = f'{arm}{model}_1xb32-40e_pet-300x300'
    folder = CONFIGS / 'classification' / 'oxford_pet'
    options = [
        f'{loader}_dataloader.dataset.{field}={value}'
        for loader in ('train', 'val', 'test')
        for field, value in (('share', SHARES[share]), ('seed', '{seed}'))
    ]
    place = share.replace(':', '-')
    return Arm(f'{name}/{place}', folder / f'{name}.py', options)


def rows(models: Sequence[str], shares: Sequence[str]) -> list[PaperRow]:
    return [
        PaperRow(
            (model, label),
            {share: arm_of(model, arm, share) for share in shares},
            dict(zip(SHARES, paper)),
        )
        for model in models
        for (arm, label), paper in zip(ARMS.items(), PAPER[model])
    ]


def main() -> None:
    parser = parser_of_runs(__doc__, seeds=range(1, 6), jobs=1)
    for name, choices in (('--models', PAPER), ('--shares', SHARES)):
        parser.add_argument(
            name, nargs='+', choices=[*choices], default=[*choices]
        )
    args = parsed(parser)
    chosen = rows(args.models, args.shares)
    arms = [arm for row in chosen for arm in row.arms.values()]
    done = args.report_only or train_arms(arms, args)
    conclude(
        args,
        'table1.md',
        paper_table(['Model', 'train/val ratio'], chosen, args, digits=3),
        'Validation accuracy in %, last epoch; mean ± standard deviation over '
        f'the finished of runs {" ".join(map(str, args.seeds))}. EQVC: '
        'equivariance constraints.',
        done,
    )


if __name__ == '__main__':
    main()
