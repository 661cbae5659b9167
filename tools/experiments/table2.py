"""Train rows of Table 2 of [AIB] and write it, the paper's errors beside
mmaib's.

    python tools/experiments/table2.py --rows 3 --out work_dirs/table2

trains the two models of line 3 on CIFAR-10 and CIFAR-100, a run at a time, as
`study.py` does. `--report-only` writes the table of what there is. `gap` and
`dvib` are rows of Table 5. Without the data sets, with 10,000 images of
CIFAR-10 as files and an eighth of the channels:

    python tools/experiments/table2.py --data cifar10-subset --rows 0 dvib 3 \\
        --seeds 1 2 3 --jobs 2 --out work_dirs/cifar10-subset
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

FULL = ('cifar10', 'cifar100')
SUBSET = 'cifar10-subset'
SMALL = {
    'vgg16': '',
    'vgg16-dvib': 'dvib_',
    'vgg16-aib': 'aib-literal_',
    'vgg16-aib-qt': 'aib-qt-literal_',
}
HEAD = ['No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types']
HEAD.append('KL Loss Eva.')
CLOSED, ADVERSARIAL = 'Closed form (Eq. (19))', 'Adv. Learning (Eq. (20))'

# line, label, config, backbone, modulation, encoder, KL, the paper's errors
PLAIN = (
    ('0', 'vanilla VGG', 'vgg16', *'----', (7.77, 30.62)),
    ('1', 'vanilla WRN', 'wrn28-10', 'WRN', *'---', (4.00, 19.25)),
    ('gap', 'VGG-GAP', 'vgg16-gap', 'VGG', *'---', (9.87, 31.77)),
    ('dvib', 'VGG-DVIB', 'vgg16-dvib', 'VGG', '-', 'Gaussian', CLOSED,
     (4.64, 22.88)),
)  # fmt: skip
# of each combination, the errors of aib and of aib-qt
COMBINATIONS = (
    ('2', 'WRN', '⊙⊕', 'Gaussian', CLOSED, (3.60, 17.82), (3.43, 17.64)),
    ('3', 'VGG', '⊙⊕', 'Gaussian', CLOSED, (4.28, 21.56), (4.10, 20.87)),
    ('4', 'VGG', '⊙', 'Gaussian', CLOSED, (4.40, 21.74), (4.33, 21.58)),
    ('5', 'VGG', '⊕', 'Gaussian', CLOSED, (4.34, 21.64), (4.25, 21.38)),
    ('6', 'VGG', 'cat', 'Gaussian', CLOSED, (4.39, 21.77), (4.31, 21.55)),
    ('7', 'VGG', '⊙⊕', 'Gaussian', ADVERSARIAL, (4.20, 21.60), (4.09, 21.17)),
    ('8', 'VGG', '⊙⊕', 'Additive', ADVERSARIAL, (4.29, 21.69), (4.08, 21.46)),
    ('9', 'VGG', '⊙⊕', 'Propagated', ADVERSARIAL,
     (4.28, 21.62), (4.15, 21.50)),
)  # fmt: skip
# what a part changes in the config of line 2 or 3
BOTTLENECK, LATENT = 'model.neck.bottleneck', 'model.head.latent'
TWICE = 'model.neck.neck.in_channels={channels}'
NOISE = [
    f'{LATENT}.type=mmaib.AdditiveNoiseEncoder',
    f'{LATENT}.noise_std=0.0',
]
CHANGES = {
    '⊙': [f'{BOTTLENECK}.modulation.mode=scale'],
    '⊕': [f'{BOTTLENECK}.modulation.mode=bias'],
    'cat': [f'{BOTTLENECK}.modulation.mode=concat', TWICE],
    # any field of it turns the critic on; this is its default
    ADVERSARIAL: [f'{LATENT}.critic.saturating=True'],
    'Additive': [f'{BOTTLENECK}.noise.mode=additive', *NOISE],
    'Propagated': [TWICE, f'{BOTTLENECK}.noise.mode=propagated', *NOISE],
}


def arm_of(line: str, config: str, parts: Sequence[str], data: str) -> Arm:
    """A model on one data set."""
    if data == SUBSET:
        folder = CONFIGS / 'sample' / SUBSET
        prefix = SMALL.get(config, f'{config}_')
        stem, channels = f'{prefix}vgg16-x0.125_1xb128-16e_{data}', 64
    else:
        family = 'wrn28-10' if config.startswith('wrn') else 'vgg16'
        folder = CONFIGS / 'classification' / family
        stem, channels = f'{config}_1xb128-200e_{data}', 512
    options = [
        option.format(channels=channels)
        for part, changed in CHANGES.items()
        if part in parts
        for option in changed
    ]
    name = f'line{line}_{stem}' if options else stem
    return Arm(name, folder / f'{stem}.py', options)


def rows(data: Sequence[str]) -> list[PaperRow]:
    """All of the table, and two of Table 5."""
    lines = [*PLAIN]
    for line, backbone, *parts, aib, quantized in COMBINATIONS:
        family = 'wrn28-10' if backbone == 'WRN' else 'vgg16'
        for suffix, paper in (('aib', aib), ('aib-qt', quantized)):
            label, config = f'{backbone}-{suffix}', f'{family}-{suffix}'
            lines.append((line, label, config, backbone, *parts, paper))
    return [
        PaperRow(
            (line, label, backbone, *parts),
            {d: arm_of(line, config, parts, d) for d in data},
            {d: value for d, value in zip(FULL, paper) if d in data},
        )
        for line, label, config, backbone, *parts, paper in lines
    ]


def main() -> None:
    lines = list(dict.fromkeys(row.labels[0] for row in rows(FULL)))
    parser = parser_of_runs(__doc__, seeds=[1], jobs=1)
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
    args = parsed(parser)
    chosen = [r for r in rows(args.data) if r.labels[0] in args.rows]
    missing = [
        f'{row.labels[1]} has no config for {data}'
        for row in chosen
        for data, arm in row.arms.items()
        if not arm.config.exists()
    ]
    if missing:
        parser.error('; '.join(missing))
    arms = [arm for row in chosen for arm in row.arms.values()]
    done = args.report_only or train_arms(arms, args)
    note = (
        'Test error in %, last epoch; mean ± standard deviation over the '
        f'finished of seeds {" ".join(map(str, args.seeds))}.'
    )
    if SUBSET in args.data:
        note += (
            f' {SUBSET}: 10,000 training and 2,000 test images of CIFAR-10, '
            'an eighth of the channels and of K, 16 epochs.'
        )
    table = paper_table(HEAD, chosen, args, error=True)
    conclude(args, 'table2.md', table, note, done)


if __name__ == '__main__':
    main()
