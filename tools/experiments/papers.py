"""Every numbered table and figure of the papers, as data: what is trained for
it, on which data, and the papers' own figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from study import CONFIGS, Arm, PaperRow

from mmaib.visualization.tables import cell

TOOLS = 'python tools/experiments/'
CLASSIFICATION, SAMPLE = CONFIGS / 'classification', CONFIGS / 'sample'
CIFAR, CIFAR100 = 'CIFAR-10', 'CIFAR-100'
SUBSET = 'cifar10-subset'
# end of a config's name, by column
DATA = {
    CIFAR: '1xb128-200e_cifar10',
    CIFAR100: '1xb128-200e_cifar100',
    'CUB-200-2011': '1xb16-200e_cub-224x224',
    'SVHN': '1xb128-200e_svhn',
}
# of a model's config on the subset, its beginning
SMALL = {
    'vgg16': '',
    'vgg16-dvib': 'dvib_',
    'vgg16-aib': 'aib-literal_',
    'vgg16-aib-qt': 'aib-qt-literal_',
}


class Study(NamedTuple):
    """A table of what trainings end with.

    Attributes:
        title: what it shows.
        data: what it needs.
        rows: of the table; those of the shrunken models if asked for.
        head: of the rows' labels.
        note: below the table.
        metrics: of the logs, by column; accuracy by default.
        seeds: of the paper.
        show: one cell of the table.
    """

    title: str
    data: str
    rows: Callable[[bool], list[PaperRow]]
    head: Sequence[str] = ('Model',)
    note: str = ''
    metrics: Mapping[str, str] = {}
    seeds: Sequence[int] = (1,)
    show: Callable[[Sequence[float]], str] = partial(cell, digits=2)


class Commands(NamedTuple):
    """What is made of trained models, or of none.

    Attributes:
        title: what it shows.
        data: what it needs.
        commands: with ``{out}``, the folder of the table or figure.
        of: the table whose runs it takes. A command is given for each arm,
            with ``{config}``, ``{run}`` and ``{checkpoint}``.
        arms: pattern of the names of the runs that it takes.
    """

    title: str
    data: str
    commands: Sequence[str] = ()
    of: str | None = None
    arms: str = ''


def errors(found: Sequence[float]) -> str:
    return cell([100 - value for value in found], 2)


def classifier(
    name: str, column: str, line: str = '', options: Sequence[str] = ()
) -> Arm | None:
    """A model on one data set, if it has a config."""
    if column == SUBSET:
        folder = SAMPLE / SUBSET
        prefix = SMALL.get(name, f'{name}_')
        stem = f'{prefix}vgg16-x0.125_1xb128-16e_{SUBSET}'
    else:
        if column.startswith('CUB'):
            name = name.replace('wrn28-10', 'wrn50-2')
        family = name.partition('-aib')[0].partition('-gap')[0]
        folder = CLASSIFICATION / family.partition('-dvib')[0]
        stem = f'{name}_{DATA[column]}'
    path = folder / f'{stem}.py'
    run = f'line{line}_{stem}' if options else stem
    return Arm(run, path, options) if path.is_file() else None


def by_column(
    columns: Sequence[str], make: Callable[[str], Arm | None]
) -> dict[str, Arm]:
    return {c: arm for c in columns if (arm := make(c)) is not None}


# Table 2 of [AIB]: line, label, config, backbone, modulation, encoder, KL
CLOSED, ADVERSARIAL = 'Closed form (Eq. (19))', 'Adv. Learning (Eq. (20))'
PLAIN = (
    ('0', 'vanilla VGG', 'vgg16', *'----', ('7.77', '30.62')),
    ('1', 'vanilla WRN', 'wrn28-10', 'WRN', *'---', ('4.00', '19.25')),
)
# of each combination, the errors of aib and of aib-qt
COMBINATIONS = (
    ('2', 'WRN', '⊙⊕', 'Gaussian', CLOSED, '3.60 17.82', '3.43 17.64'),
    ('3', 'VGG', '⊙⊕', 'Gaussian', CLOSED, '4.28 21.56', '4.10 20.87'),
    ('4', 'VGG', '⊙', 'Gaussian', CLOSED, '4.40 21.74', '4.33 21.58'),
    ('5', 'VGG', '⊕', 'Gaussian', CLOSED, '4.34 21.64', '4.25 21.38'),
    ('6', 'VGG', 'cat', 'Gaussian', CLOSED, '4.39 21.77', '4.31 21.55'),
    ('7', 'VGG', '⊙⊕', 'Gaussian', ADVERSARIAL, '4.20 21.60', '4.09 21.17'),
    ('8', 'VGG', '⊙⊕', 'Additive', ADVERSARIAL, '4.29 21.69', '4.08 21.46'),
    ('9', 'VGG', '⊙⊕', 'Propagated', ADVERSARIAL, '4.28 21.62', '4.15 21.50'),
)
# what a part changes in the config of line 2 or 3
BOTTLENECK, LATENT = 'model.neck.bottleneck', 'model.head.latent'
TWICE = 'model.neck.neck.in_channels={channels}'
NOISE = (
    f'{LATENT}.type=mmaib.AdditiveNoiseEncoder',
    f'{LATENT}.noise_std=0.0',
)
CHANGES = {
    '⊙': [f'{BOTTLENECK}.modulation.mode=scale'],
    '⊕': [f'{BOTTLENECK}.modulation.mode=bias'],
    'cat': [f'{BOTTLENECK}.modulation.mode=concat', TWICE],
    # any field of it turns the critic on; this is its default
    ADVERSARIAL: [f'{LATENT}.critic.saturating=True'],
    'Additive': [f'{BOTTLENECK}.noise.mode=additive', *NOISE],
    'Propagated': [TWICE, f'{BOTTLENECK}.noise.mode=propagated', *NOISE],
}


def combinations(tiny: bool) -> list[PaperRow]:
    """Of Table 2 of [AIB]."""
    columns = (SUBSET,) if tiny else (CIFAR, CIFAR100)
    lines: list[tuple] = [*PLAIN]
    for line, backbone, *parts, aib, quantized in COMBINATIONS:
        family = 'wrn28-10' if backbone == 'WRN' else 'vgg16'
        for suffix, paper in (('aib', aib), ('aib-qt', quantized)):
            label, name = f'{backbone}-{suffix}', f'{family}-{suffix}'
            lines.append((line, label, name, backbone, *parts, paper.split()))
    options = {
        part: [o.format(channels=64 if tiny else 512) for o in changed]
        for part, changed in CHANGES.items()
    }
    rows = []
    for line, label, name, backbone, *parts, paper in lines:
        own = [o for part in options if part in parts for o in options[part]]
        make = partial(classifier, name, line=line, options=own)
        known = {} if tiny else dict(zip(columns, paper))
        labels = (line, label, backbone, *parts)
        rows.append(PaperRow(labels, by_column(columns, make), known))
    return rows


# Table 5 of [AIB]; models of other papers have no config
ERRORS = """
VGG         vgg16           7.77  30.62  34.64  4.27  54.66  55.09
VGG-GAP     vgg16-gap       9.87  31.77  29.50  5.84  56.76  57.24
VGG-PAN     -               6.29  24.35  31.46  8.02  52.50  52.79
VGG-DVIB    vgg16-dvib      4.64* 22.88* 23.94* 3.28* 51.40* 51.60*
WRN         wrn28-10        4.00  19.25  26.50  -     -      -
VGG-att2    -               5.23  23.19  26.80  3.74  51.24  51.71
VGG-att3    -               6.34  22.97  26.95  3.52  51.58  51.68
VGG-aib     vgg16-aib       4.28  21.56  23.73  3.24  50.64  51.24
VGG-aib-qt  vgg16-aib-qt    4.10  20.87  21.83  3.07  50.44  51.16
WRN-ABN     -               3.92* 18.12  -      2.88* 50.90* 51.24*
WRN-aib     wrn28-10-aib    3.60  17.82  17.26  2.76  50.08  50.84
WRN-aib-qt  wrn28-10-aib-qt 3.43  17.64  16.88  2.69  50.34  50.49
"""


def classification(tiny: bool) -> list[PaperRow]:
    """Of Table 5 of [AIB]."""
    columns = (*DATA, 'STL10-train', 'STL10-test')
    rows = []
    for label, name, *paper in map(str.split, ERRORS.strip().split('\n')):
        make = partial(classifier, name)
        arms = by_column((SUBSET,) if tiny else (*DATA,), make)
        known = {} if tiny else dict(zip(columns, paper))
        rows.append(PaperRow((label,), arms if name != '-' else {}, known))
    return rows


def dense(
    full: str,
    sample: str,
    columns: Sequence[str],
    papers: Mapping[str, str],
    tiny: bool,
) -> list[PaperRow]:
    """Of Tables 6 and 7 of [AIB]: a base model, aib and aib-qt, by the base
    model's config, full and shrunken."""
    base = CONFIGS / (sample if tiny else full)
    rows = []
    prefixes = ('', 'aib-literal_', 'aib-qt-literal_')
    for (label, paper), prefix in zip(papers.items(), prefixes):
        path = base.with_name(f'{prefix}{base.name}.py')
        arms = dict.fromkeys(columns, Arm(path.stem, path))
        known = {} if tiny else dict(zip(columns, paper.split()))
        rows.append(PaperRow((label,), arms if path.is_file() else {}, known))
    return rows


BOX = {
    'mAP': 'coco/bbox_mAP',
    'mAP@50': 'coco/bbox_mAP_50',
    'mAP@75': 'coco/bbox_mAP_75',
}


def hyperparameters(tiny: bool) -> list[PaperRow]:
    """Of Fig. 6 of [AIB], which prints no figures; the values of beta and Q
    between which its best ones lie are ours."""
    column = SUBSET if tiny else CIFAR
    rows = []
    for symbol, name, field, found in (
        ('beta', 'aib', f'{LATENT}.beta', (0.001, 0.003, 0.01, 0.03, 0.1)),
        ('K', 'aib', 'model.head.latent_channels', (64, 128, 256, 512, 1024)),
        ('Q', 'aib-qt', f'{BOTTLENECK}.quantizer.num_anchors',
         (5, 10, 20, 50, 100)),
    ):  # fmt: skip
        for value in found:
            options = [f'{field}={value}']
            make = partial(
                classifier, f'vgg16-{name}', line=f'-{symbol}-{value}',
                options=options,
            )  # fmt: skip
            labels = (symbol, str(value))
            rows.append(PaperRow(labels, by_column([column], make), {}))
    return rows


# Table 1 of [RECT]: accuracy at 6:4, 7:3 and 8:2
SHARES = {'6:4': 0.6, '7:3': 0.7, '8:2': 0.8}
PETS = {
    '': 'no attention',
    'pw-': 'position-wise attention',
    'rect-': 'rectangle attention, no EQVC',
    'rect-equi-': 'rectangle attention, with EQVC',
}
ACCURACIES = {
    'mobilenetv3-large': (
        ('91.153 ± 0.305', '92.344 ± 0.442', '92.630 ± 0.515'),
        ('91.525 ± 0.170', '92.218 ± 0.345', '92.981 ± 0.561'),
        ('91.755 ± 0.201', '92.678 ± 0.198', '93.185 ± 0.632'),
        ('91.823 ± 0.335', '92.822 ± 0.277', '93.225 ± 0.620'),
    ),
    'efficientnet-b0': (
        ('93.459 ± 0.229', '94.085 ± 0.364', '94.577 ± 0.327'),
        ('93.290 ± 0.320', '93.922 ± 0.567', '94.455 ± 0.245'),
        ('93.811 ± 0.319', '94.355 ± 0.396', '94.739 ± 0.406'),
        ('93.872 ± 0.414', '94.355 ± 0.422', '94.915 ± 0.493'),
    ),
}


def pet(model: str, arm: str, share: str) -> Arm:
    """One model at one division of the images, which each seed makes anew."""
    name = f'{arm}{model}_1xb32-40e_pet-300x300'
    options = [
        f'{loader}_dataloader.dataset.{field}={value}'
        for loader in ('train', 'val', 'test')
        for field, value in (('share', SHARES[share]), ('seed', '{seed}'))
    ]
    path = CLASSIFICATION / 'oxford_pet' / f'{name}.py'
    return Arm(f'{name}/{share.replace(":", "-")}', path, options)


def pets(tiny: bool) -> list[PaperRow]:
    """Of Table 1 of [RECT]."""
    if tiny:
        data = 'cluttered-digits'
        stem = f'vgg_1xb50-12e_{data}-48x48'
        found = []
        for arm, label in PETS.items():
            name = f'{arm[:-1]}_{stem}' if arm else stem
            path = SAMPLE / data / f'{name}.py'
            found.append(PaperRow(('vgg', label), {data: Arm(name, path)}, {}))
        return found
    return [
        PaperRow(
            (model, label),
            {share: pet(model, arm, share) for share in SHARES},
            dict(zip(SHARES, paper)),
        )
        for model, papers in ACCURACIES.items()
        for (arm, label), paper in zip(PETS.items(), papers)
    ]


DRAWING = 'a drawing of the method'
PICTURES = (
    'python -m mmaib visualize {config} {checkpoint} --out {out}/{run} '
    '--max-images 16'
)
LAYERS = TOOLS + 'complexity.py --layers configs/classification/'
SCORES = TOOLS + 'interpretability.py {runs} --out {out} --patches $SVHN'
PET, COCO, ADE = 'Oxford-IIIT Pet', 'COCO 2017', 'ADE20K, BEiT-base'
CLASSES = 'CIFAR-10, CIFAR-100, CUB, SVHN'
AIB = 'aib.*'
CELLS: dict[str, Study | Commands] = {
    'table aib/1': Commands(
        'Networks on CIFAR',
        'none',
        [
            f'{LAYERS}vgg16/vgg16-aib_1xb128-200e_cifar10.py',
            f'{LAYERS}wrn28-10/wrn28-10-aib_1xb128-200e_cifar10.py',
        ],
    ),
    'table aib/2': Study(
        'Combinations of parts, test error in %',
        'CIFAR-10, CIFAR-100',
        combinations,
        (
            'No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types',
            'KL Loss Eva.',
        ),
        'Test error in %.',
        show=errors,
    ),
    'table aib/3': Commands(
        'Multiply-adds and time', 'none',
        [TOOLS + 'complexity.py --out {out}/table.md'],
    ),
    'table aib/4': Commands(
        'Networks on CUB',
        'none',
        [
            f'{LAYERS}vgg16/vgg16-aib_1xb16-200e_cub-224x224.py --size 224',
            f'{LAYERS}wrn50-2/wrn50-2-aib_1xb16-200e_cub-224x224.py '
            '--size 224',
        ],
    ),
    'table aib/5': Study(
        'Classification, test error in %',
        CLASSES,
        classification,
        note='Test error in %; *: re-trained by the paper. STL-10: test the '
        'runs of CIFAR-10 by the configs `..._cifar10-to-stl10.py`.',
        show=errors,
    ),
    'table aib/6': Study(
        'Segmentation',
        ADE,
        partial(
            dense,
            'segmentation/upernet/beit-base_upernet_8xb2-160k_ade20k-512x512',
            'sample/digits/upernet_lite0_1xb8-500_digits-128x128',
            ('mIoU',),
            {'BEiT': '47.70', 'BEiT-aib': '49.76', 'BEiT-aib-qt': '49.96'},
        ),
        note="The paper's baseline has another decoder.",
        metrics={'mIoU': 'mIoU'},
    ),
    'table aib/7': Study(
        'Detection',
        COCO,
        partial(
            dense,
            'detection/faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
            'sample/trees/faster-rcnn_lite0_fpn_6e_trees-256',
            tuple(BOX),
            {
                'Faster R-CNN': '37.4 58.3 41.2',
                'Faster R-CNN-aib': '38.3 59.4 41.4',
                'Faster R-CNN-aib-qt': '38.4 59.3 41.7',
            },
        ),
        note="AP in %. Not trained here: the base model, by mmdet's config.",
        metrics=BOX,
        show=lambda found: cell([100 * value for value in found], 1),
    ),
    'table aib/8': Commands(
        'Interpretability scores', f'{CIFAR}, {CIFAR100}; images in $SVHN',
        [SCORES], 'table aib/5', '.*aib.*cifar10.*',
    ),
    **{f'figure aib/{i}': Commands(DRAWING, '-') for i in range(1, 6)},
    'figure aib/6': Study(
        'beta, K and Q', CIFAR, hyperparameters, ('', 'value'),
        'Test error in %; the paper plots accuracy and prints no figures.',
        show=errors,
    ),
    'figure aib/7': Commands('Wrong by aib, right by aib-qt', CIFAR),
    'figure aib/8': Commands(
        'Maps of classifiers', CLASSES, [PICTURES], 'table aib/5', '.*aib.*'
    ),
    'figure aib/9': Commands(
        'Maps of segmentors', ADE, [PICTURES], 'table aib/6', AIB
    ),
    'figure aib/10': Commands(
        'Maps of detectors', COCO, [PICTURES], 'table aib/7', AIB
    ),
    'figure aib/11': Commands('Maps of modified images', CIFAR),
    **{
        f'figure aib/{number}': Commands(
            'Failure cases, worst first', data,
            [f'{PICTURES} && python -m mmaib report {{out}}'], of, pattern,
        )
        for number, data, of, pattern in (
            (12, CLASSES, 'table aib/5', '.*aib.*'),
            (13, ADE, 'table aib/6', AIB),
            (14, COCO, 'table aib/7', AIB),
        )
    },
    'table rect/1': Study(
        'Accuracy in % by division', PET, pets, ('Model', 'train/val ratio'),
        'Validation accuracy in %; a run has its number as the seed of its '
        'division. EQVC: equivariance constraints.',
        seeds=(1, 2, 3, 4, 5),
        show=partial(cell, digits=3),
    ),
    **{f'figure rect/{i}': Commands(DRAWING, '-') for i in range(1, 5)},
    'figure rect/5': Commands('Accuracy by split', PET),
    'figure rect/6': Commands(
        'Maps', PET, [PICTURES], 'table rect/1',
        '(pw|rect-equi)[-_](mobile.*/8-2|vgg.*)',
    ),
    'figure rect/7': Commands('Maps of a shallower layer', PET),
    'figure rect/8': Commands('Maps of a sequence of transforms', PET),
    'figure rect/9': Commands(
        'Images by their rectangle', PET,
        [TOOLS + 'rectangles.py {config} {checkpoint} --out {out}'],
        'table rect/1', 'rect-equi[-_](mobile.*/8-2|vgg.*)',
    ),
    'figure rect/10': Commands(DRAWING, '-'),
}  # fmt: skip
