"""Every numbered table and figure of the papers, as data: what is trained for
it, on which data, and the papers' own figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from study import CONFIGS, Arm, PaperRow

from mmaib.visualization.tables import cell

TOOLS = 'python tools/experiments/'
CLASSIFICATION = CONFIGS / 'classification'
# end of a config's name, by column
DATA = {
    'CIFAR-10': '1xb128-200e_cifar10',
    'CIFAR-100': '1xb128-200e_cifar100',
    'CUB-200-2011': '1xb16-200e_cub-224x224',
    'SVHN': '1xb128-200e_svhn',
}
# tested, not trained
STL = ('STL10-train', 'STL10-test')


class Cell(NamedTuple):
    """A table or figure.

    Attributes:
        title: what it shows.
        data: what it needs.
        rows: what is trained for it.
        arms: pattern of the names of those arms of the rows that it takes.
        head: of the rows' labels, if it has a table.
        note: below the table.
        metrics: of the logs, by column; accuracy by default.
        seeds: of the paper.
        show: one cell of the table.
        lines: for a plot, the panel and the line of a row's column.
        commands: after the trainings, with ``{out}``, the folder of the table
            or figure. One with ``{config}``, ``{run}`` and ``{checkpoint}``
            is given for each arm, one with ``{runs}`` for all of them.
        tiny: ends a command at `--scale tiny`.
    """

    title: str
    data: str
    rows: Callable[[], list[PaperRow]] = list
    arms: str = '.*'
    head: Sequence[str] = ()
    note: str = ''
    metrics: Mapping[str, str] = {}
    seeds: Sequence[int] = (1,)
    show: Callable[[Sequence[float]], str] = partial(cell, digits=2)
    lines: Callable[[PaperRow, str], tuple[str, str]] | None = None
    commands: Sequence[str] = ()
    tiny: str = ''


def errors(found: Sequence[float]) -> str:
    return cell([100 - value for value in found], 2)


def classifier(
    name: str, column: str, line: str = '', options: Sequence[str] = ()
) -> Arm | None:
    """A model on one data set, if it has a config. On STL-10 it is that of
    CIFAR-10, tested."""
    data = DATA['CIFAR-10' if column in STL else column]
    if column.startswith('CUB'):
        name = name.replace('wrn28-10', 'wrn50-2')
    folder = CLASSIFICATION / name.partition('-aib')[0].partition('-gap')[0]
    folder = folder.with_name(folder.name.removesuffix('-dvib'))
    stem = f'{name}_{data}'
    path = folder / f'{stem}.py'
    if not path.is_file():
        return None
    arm = Arm(f'line{line}_{stem}' if options else stem, path, options)
    if column not in STL:
        return arm
    split = f'test_dataloader.dataset.split={column[6:]}'
    tested = path.with_name(f'{stem}-to-stl10.py')
    return Arm(f'{stem}/{column}', tested, [split], arm, test=True)


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
TWICE = 'model.neck.neck.in_channels=512'
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


def combinations() -> list[PaperRow]:
    """The rows of Table 2 of [AIB]."""
    columns = ('CIFAR-10', 'CIFAR-100')
    lines: list[tuple] = [*PLAIN]
    for line, backbone, *parts, aib, quantized in COMBINATIONS:
        family = 'wrn28-10' if backbone == 'WRN' else 'vgg16'
        for suffix, paper in (('aib', aib), ('aib-qt', quantized)):
            label, name = f'{backbone}-{suffix}', f'{family}-{suffix}'
            lines.append((line, label, name, backbone, *parts, paper.split()))
    rows = []
    for line, label, name, backbone, *parts, paper in lines:
        own = [o for part in CHANGES if part in parts for o in CHANGES[part]]
        make = partial(classifier, name, line=line, options=own)
        labels = (line, label, backbone, *parts)
        arms = by_column(columns, make)
        rows.append(PaperRow(labels, arms, dict(zip(columns, paper))))
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


def classification() -> list[PaperRow]:
    """The rows of Table 5 of [AIB]."""
    columns = (*DATA, *STL)
    rows = []
    for label, name, *paper in map(str.split, ERRORS.strip().split('\n')):
        arms = by_column(columns, partial(classifier, name))
        rows.append(PaperRow((label,), arms, dict(zip(columns, paper))))
    return rows


def dense(
    config: str, columns: Sequence[str], papers: Mapping[str, str]
) -> list[PaperRow]:
    """The rows of Tables 6 and 7 of [AIB]: a base model, aib and aib-qt, by
    the base model's config."""
    base = CONFIGS / config
    rows = []
    prefixes = ('', 'aib-literal_', 'aib-qt-literal_')
    for (label, paper), prefix in zip(papers.items(), prefixes):
        path = base.with_name(prefix + base.name)
        arms = dict.fromkeys(columns, Arm(path.stem, path))
        known = dict(zip(columns, paper.split()))
        rows.append(PaperRow((label,), arms, known))
    return rows


BOX = {
    'mAP': 'coco/bbox_mAP',
    'mAP@50': 'coco/bbox_mAP_50',
    'mAP@75': 'coco/bbox_mAP_75',
}


def hyperparameters() -> list[PaperRow]:
    """The runs of Fig. 6 of [AIB], which prints no figures; the values of
    beta and Q between which its best ones lie are mmaib's. The defaults are
    Table 5's runs."""
    rows = []
    for symbol, name, field, found, default in (
        ('beta', 'aib', f'{LATENT}.beta', (0.001, 0.003, 0.01, 0.03, 0.1),
         0.01),
        ('K', 'aib', 'model.head.latent_channels', (64, 128, 256, 512, 1024),
         256),
        ('Q', 'aib-qt', f'{BOTTLENECK}.quantizer.num_anchors',
         (5, 10, 20, 50, 100), 20),
    ):  # fmt: skip
        for value in found:
            make = partial(
                classifier,
                f'vgg16-{name}',
                line=f'-{symbol}-{value}',
                options=[] if value == default else [f'{field}={value}'],
            )
            arms = by_column(['CIFAR-10'], make)
            rows.append(PaperRow((symbol, str(value)), arms, {}))
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


def pets() -> list[PaperRow]:
    """The rows of Table 1 of [RECT]."""
    return [
        PaperRow(
            (model, label),
            {share: pet(model, arm, share) for share in SHARES},
            dict(zip(SHARES, paper)),
        )
        for model, papers in ACCURACIES.items()
        for (arm, label), paper in zip(PETS.items(), papers)
    ]


def depths() -> list[PaperRow]:
    """The rows of Fig. 7 of [RECT]: maps of a shallower layer, and others."""
    model, share = 'mobilenetv3-large', '8:2'
    arms = ('pw-shallow-', 'rect-shallow-', 'pw-', 'rect-')
    return [
        PaperRow((model, arm), {share: pet(model, arm, share)}, {})
        for arm in arms
    ]


# GPU-hours of a run, by its config's name, the first that matches; sources
# below
HOURS = {
    'aib.*faster-rcnn': 53,
    'faster-rcnn': 42,
    'aib.*upernet': 52,
    'upernet': 45,
    'vgg16.*cub': 0.4,
    'wrn50-2-aib': 0.5,
    'wrn50-2': 0.3,
    'vgg16.*svhn': 1.2,
    'vgg16': 0.8,
    'wrn28-10-aib.*svhn': 3.7,
    'wrn28-10-aib': 2.6,
    'wrn28-10.*svhn': 1.6,
    'wrn28-10': 1.1,
}
SOURCES = """
GPU-hours, estimated. COCO: V100s; mmdet's docs/en/model_zoo.md has 0.216 s an
iteration of Faster R-CNN on 8, 87,960 iterations; aib's step takes 1.25 times
as long (docs/results/speed.md, "On a GPU"). ADE20K: H200s; no log of mmseg's
could be read; docs/results/speed.md has 0.127 s a step of two images, aib
0.146 s, 160,000 steps on 8. CIFAR-10, VGG: 0.18 s a step on an H200 with five
trainings at once, of which no record was kept; all other classifiers by their
multiply-adds (Table 3), as no base library publishes a log of them. Pets: not
estimated, reading of images counts more than the networks. Without
evaluations.
"""

# the columns that are taken at `--scale tiny`: others differ in the data alone
TINY = (
    'CIFAR-10', 'CUB-200-2011', 'STL10-test', '8:2', 'mIoU', 'mAP',
    'mAP@50', 'mAP@75',
)  # fmt: skip
# the sample config in place of one of COCO or ADE20K, whose models have no
# field that narrows all of them
SAMPLES = {
    'faster-rcnn_r50_fpn_1x_coco': (
        'trees/{}faster-rcnn_lite0_fpn_6e_trees-256'
    ),
    'beit-base_upernet_8xb2-160k_ade20k-512x512': (
        'digits/{}upernet_lite0_1xb8-500_digits-128x128'
    ),
}

DRAWING = 'a drawing of the method'
PICTURES = (
    'python -m mmaib visualize {config} {checkpoint} --out {out}/{run} '
    '--max-images 16'
)
LAYERS = TOOLS + 'complexity.py --layers configs/classification/'
MAPS = TOOLS + 'interpretability.py {runs} --out {out}'
SVHN = ' --patches ${{MMAIB_DATA:-data}}/svhn/test_32x32.mat'
ROWS = MAPS + ' --max-images 16 --pictures '
FEW = '--max-images 4'
PET, COCO, ADE = 'Oxford-IIIT Pet', 'COCO 2017', 'ADE20K, BEiT-base'
CIFAR, CLASSES = 'CIFAR-10', 'CIFAR-10, CIFAR-100, CUB, SVHN, STL-10'
TABLE5 = Cell(
    'Classification, test error in %',
    CLASSES,
    classification,
    head=('Model',),
    note='Test error in %; *: re-trained by the paper.',
    show=errors,
)
TABLE6 = Cell(
    'Segmentation',
    ADE,
    partial(
        dense,
        'segmentation/upernet/beit-base_upernet_8xb2-160k_ade20k-512x512.py',
        ('mIoU',),
        {'BEiT': '47.70', 'BEiT-aib': '49.76', 'BEiT-aib-qt': '49.96'},
    ),
    head=('Model',),
    note="The paper's baseline has another decoder.",
    metrics={'mIoU': 'mIoU'},
)
TABLE7 = Cell(
    'Detection',
    COCO,
    partial(
        dense,
        'detection/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        tuple(BOX),
        {
            'Faster R-CNN': '37.4 58.3 41.2',
            'Faster R-CNN-aib': '38.3 59.4 41.4',
            'Faster R-CNN-aib-qt': '38.4 59.3 41.7',
        },
    ),
    head=('Model',),
    note='AP in %.',
    metrics=BOX,
    show=lambda found: cell([100 * value for value in found], 1),
)
RECT1 = Cell(
    'Accuracy in % by division',
    PET,
    pets,
    head=('Model', 'train/val ratio'),
    note='Validation accuracy in %; a run has its number as the seed of its '
    'division. EQVC: equivariance constraints.',
    seeds=(1, 2, 3, 4, 5),
    show=partial(cell, digits=3),
)


def figure(
    title: str,
    of: Cell,
    arms: str,
    *commands: str,
    tiny: str = FEW,
    data: str = '',
) -> Cell:
    """Pictures of a table's runs, of the first seed."""
    data = data or of.data
    return Cell(title, data, of.rows, arms, commands=commands, tiny=tiny)


AIB, PETS82 = '.*aib.*', 'mobile.*/8-2'
CELLS: dict[str, Cell] = {
    'table aib/1': Cell(
        'Networks on CIFAR',
        'none',
        commands=[
            f'{LAYERS}vgg16/vgg16-aib_1xb128-200e_cifar10.py',
            f'{LAYERS}wrn28-10/wrn28-10-aib_1xb128-200e_cifar10.py',
        ],
    ),
    'table aib/2': Cell(
        'Combinations of parts, test error in %',
        'CIFAR-10, CIFAR-100',
        combinations,
        head=(
            'No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types',
            'KL Loss Eva.',
        ),
        note='Test error in %.',
        show=errors,
    ),
    'table aib/3': Cell(
        'Multiply-adds and time', 'none',
        commands=[TOOLS + 'complexity.py --out {out}/table.md'],
        tiny='--rounds 1',
    ),
    'table aib/4': Cell(
        'Networks on CUB',
        'none',
        commands=[
            f'{LAYERS}vgg16/vgg16-aib_1xb16-200e_cub-224x224.py --size 224',
            f'{LAYERS}wrn50-2/wrn50-2-aib_1xb16-200e_cub-224x224.py '
            '--size 224',
        ],
    ),
    'table aib/5': TABLE5,
    'table aib/6': TABLE6,
    'table aib/7': TABLE7,
    'table aib/8': figure(
        'Interpretability scores', TABLE5, '.*aib.*cifar100?', MAPS + SVHN,
        tiny=f'{FEW} --no-ablations', data='CIFAR-10, CIFAR-100, SVHN',
    ),
    **{f'figure aib/{i}': Cell(DRAWING, '-') for i in range(1, 6)},
    'figure aib/6': Cell(
        'beta, K and Q', CIFAR, hyperparameters, head=('', 'value'),
        note='Test error in %; the paper plots accuracy and prints no '
        'figures.',
        show=errors,
        lines=lambda row, column: (row.labels[0], ''),
    ),
    'figure aib/7': figure(
        'Wrong by aib, right by aib-qt', TABLE5, 'vgg16-aib.*cifar10',
        f'{ROWS}corrected', data=CIFAR,
    ),
    'figure aib/8': figure('Maps of classifiers', TABLE5, AIB, PICTURES),
    'figure aib/9': figure('Maps of segmentors', TABLE6, AIB, PICTURES),
    'figure aib/10': figure('Maps of detectors', TABLE7, AIB, PICTURES),
    'figure aib/11': figure(
        'Maps of modified images', TABLE5, '.*aib.*cifar10',
        f'{ROWS}modified{SVHN}', data='CIFAR-10, SVHN',
    ),
    **{
        f'figure aib/{number}': figure(
            'Failure cases, worst first', of, f'(?!.*-test){AIB}',
            PICTURES.replace('{out}/{run}', '{work_dir}/attention'),
            'python -m mmaib report {work_dir} --out {out}/{run}.html',
        )
        for number, of in ((12, TABLE5), (13, TABLE6), (14, TABLE7))
    },
    'table rect/1': RECT1,
    **{f'figure rect/{i}': Cell(DRAWING, '-') for i in range(1, 5)},
    'figure rect/5': RECT1._replace(
        title='Accuracy by split',
        lines=lambda row, column: (f'{row.labels[0]}, {column}',
                                   row.labels[1]),
    ),
    'figure rect/6': figure('Maps', RECT1, f'(pw|rect-equi)-{PETS82}',
                            PICTURES),
    'figure rect/7': Cell(
        'Maps of a shallower layer', PET, depths, commands=[PICTURES],
        tiny=FEW,
    ),
    'figure rect/8': figure(
        'Maps of a sequence of transforms', RECT1,
        f'(pw|rect-equi)-{PETS82}', f'{ROWS}transformed',
    ),
    'figure rect/9': figure(
        'Images by their rectangle', RECT1, f'rect-equi-{PETS82}',
        TOOLS + 'rectangles.py {config} {checkpoint} --out {out}', tiny='',
    ),
    'figure rect/10': Cell(DRAWING, '-'),
}  # fmt: skip
