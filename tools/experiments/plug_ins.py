"""Attention plug-ins side by side: one base model, one schedule, paired seeds.

    python tools/experiments/plug_ins.py bccd --out work_dirs/plug_ins/bccd

Rows: the base model; mmcv's ContextBlock and GeneralizedAttention and CBAM;
the paper's map in its letter and as recommended; the information gate, trained
with the model and as a readout of the frozen base model; a residual of about
as many parameters as `aib` adds, without attention. All stand at one place. Of
our maps also what the metric loses when the map is mirrored and when its
scores stand in the order of the features' norm or of the distance to the
centre, as open as before.

Resumable, as study.py is; with `--records FILE.jsonl#SET --report-only` the
table is written from records.
"""

import os
from functools import partial
from pathlib import Path

from mmengine.registry import MODELS, DefaultScope
from study import (
    CONFIGS,
    Arm,
    conclude,
    finished,
    metrics_to_tabulate,
    parsed,
    parser_of_runs,
    train_arms,
)

from mmaib.cli.loading import read_config
from mmaib.cli.wrap import wrap_config
from mmaib.cost import millions
from mmaib.files import alone_in, write_whole
from mmaib.visualization.tables import (
    METRICS,
    Column,
    difference,
    lost,
    markdown,
    paired,
    tabulate,
    with_nothing_found,
)

HERE = Path(__file__).resolve().parent
BASE, AIB, RESIDUAL, READOUT = 'base', 'aib', 'residual', 'readout'
LITERAL, PEERS = 'aib-qt-literal', 'peers'
CIFAR = 'cifar10-subset'
# a task's configs, for an arm's name with '_' after it, and its readout's
TASKS = {
    'bccd': (
        '{}faster-rcnn_lite0_fpn_12e_bccd-256',
        'faster-rcnn_lite0_fpn_4e_bccd-256',
    ),
    'trees': (
        '{}faster-rcnn_lite0_fpn_6e_trees-256',
        'faster-rcnn_lite0_fpn_3e_trees-256',
    ),
    'camvid': (
        '{}upernet_lite0_1xb4-500_camvid-320x240',
        'upernet_lite0_1xb4-200_camvid-320x240',
    ),
    CIFAR: ('{}vgg16-x0.125_1xb128-16e_cifar10-subset', ''),
}
# a base model's config with a part of peers.py in its neck
PEER = """_base_ = {base!r}
custom_imports = dict(imports=['mmaib', 'peers'])

model = dict(neck=dict({neck}, part=dict(type='CBAM')))
"""
LEVELS = {'camvid': "type='LevelsWithParts', in_channels=[24, 40, 112, 320]"}
# VGG16 of an eighth of the channels, cut where the paper cuts it, with a part
# there. Maps of 8 x 8, not 16 x 16: a run takes three minutes, not twenty-five
CUT = """_base_ = {base!r}
custom_imports = dict(imports=['mmaib', 'peers'])

model = dict(
    backbone=dict(
        channels=(8, 16, 32), depths=(2, 2, 3), pools=(True, True, False),
        last_conv=None),
    neck=[{part}
        dict(
            type='mmaib.VGGBlocks', in_channels=32,
            channels=(64, 64, 64, 64), depths=(3, 3, 1, 1),
            pools=(True, True, True, False), last_conv=64),
        dict(type='GlobalAveragePooling')])
train_cfg = dict(val_interval=16)
default_hooks = dict(attention=dict(type='mmaib.AttentionEvalHook'))
"""
PART = """
        dict(
            type='LevelsWithParts', in_channels=[32],
            part=dict(type='CBAM')),"""
# fields of the part
PARTS = {
    'context-block': ('type=ContextBlock', 'ratio=0.0625'),
    'gen-attention-0010': ('type=KeyContentAttention',),
    'cbam': ('type=CBAM',),
}
# what the metric loses when the map's scores stand elsewhere
ABLATIONS = ('mirror', 'norm', 'centre')
OPTIONS = f'default_hooks.attention.ablations=[{",".join(ABLATIONS)}]'
# of what wrap writes, on the classifier
TO_THE_LETTER = [
    f'model.neck.bottleneck.{field}'
    for field in (
        'attention.logit_norm=False',
        'attention.std_kernel=3',
        'modulation.init=paper',
    )
]
OURS = (LITERAL, AIB, 'aib-qt', 'gate')


def parameters(arm: Arm) -> float:
    """How many its model has, in 1e6."""
    cfg = read_config(arm.config, arm.options)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return millions(MODELS.build(cfg.model))


def configs_of(task: str, out: Path) -> dict[str, Path]:
    """The configs of the base model, of mmaib's arms and of the peers:
    samples, or written to a folder's ``configs``."""
    base, readout = TASKS[task]
    folder = CONFIGS / 'sample' / task
    names = {BASE: base.format('')}
    names |= {name: base.format(f'{name}_') for name in OURS}
    names[READOUT] = f'{READOUT}_{readout}'
    found = {k: folder / f'{name}.py' for k, name in names.items()}
    own = out / 'configs'
    own.mkdir(parents=True, exist_ok=True)

    def write(name: str, stem: str, text: str) -> None:
        found[name] = own / f'{stem}.py'
        with alone_in(own):  # of processes that have some of the arms each
            if not found[name].exists() or found[name].read_text() != text:
                write_whole(found[name], text.encode())

    if task != CIFAR:
        neck = LEVELS.get(task, "type='FPNWithPart'")
        write(PEERS, task, PEER.format(base=str(found[BASE]), neck=neck))
        return found
    write(PEERS, PEERS, CUT.format(base=str(found[BASE]), part=PART))
    write(BASE, BASE, CUT.format(base=str(found[BASE]), part=''))
    for name in (*OURS, READOUT):
        cfg = wrap_config(
            found[BASE],
            'aib-qt' if name == LITERAL else name,
            where='before',
            latent='aib' in name,
        )
        cfg.pop('work_dir', None)  # free when it was written
        write(name, name, cfg.pretty_text)
    return found


def arms_of(task: str, out: Path) -> list[Arm]:
    """The table's rows, the base model first."""
    configs = configs_of(task, out)
    place = 'model.neck.0.part' if task == CIFAR else 'model.neck.part'

    def with_part(name: str, *fields: str) -> Arm:
        options = [f'{place}.{field}' for field in fields]
        return Arm(name, configs[PEERS], options)

    def residual(hidden: int) -> Arm:
        return with_part(RESIDUAL, 'type=Residual', f'hidden={hidden}')

    def ours(name: str) -> Arm:
        letter = TO_THE_LETTER if task == CIFAR and name == LITERAL else ()
        return Arm(name, configs[name], [OPTIONS, *letter])

    plain = Arm(BASE, configs[BASE])
    one, two = (parameters(residual(hidden)) for hidden in (1, 2))
    wanted = parameters(ours(AIB))
    return [
        plain,
        *(with_part(name, *fields) for name, fields in PARTS.items()),
        *map(ours, OURS),
        ours(READOUT)._replace(start=plain),
        residual(1 + max(round((wanted - one) / (two - one)), 0)),
    ]


def main() -> None:
    parser = parser_of_runs(__doc__, seeds=(1, 2, 3, 4, 5))
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('--arms', nargs='+', help='train these rows alone')
    args = parsed(parser)
    # where each run finds the parts
    os.environ['PYTHONPATH'] = os.pathsep.join(
        [str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    arms = arms_of(args.task, args.out)
    names = [arm.name for arm in arms]
    if unknown := {*(args.arms or ())} - {*names}:
        parser.error(f'--arms {" ".join(unknown)}: choose of {names}')
    wanted = [arm for arm in arms if arm.name in (args.arms or names)]
    done = args.report_only or train_arms(wanted, args)
    rows = with_nothing_found({a.name: finished(a, args) for a in arms})
    measured = filter(None, rows.values())
    metric = [*metrics_to_tabulate([], measured), METRICS[0]][0]
    millions_of = {arm.name: parameters(arm) for arm in arms}
    columns = [
        Column(metric, metric),
        Column(
            'minus base model',
            partial(paired, base=rows[BASE], metric=metric),
            difference,
        ),
        Column(
            'minus the residual',
            partial(paired, base=rows[RESIDUAL], metric=metric),
            difference,
        ),
        *(
            Column(
                f'lost by {change}',
                partial(lost, metric=metric, change=change),
                difference,
            )
            for change in ABLATIONS
        ),
        Column('AUC', 'attention/auc'),
    ]
    found = tabulate('plug-in', rows, columns)
    found[0].append('M parameters')
    for line in found[1:]:
        line.append(f'{millions_of[line[0]]:.3f}')
    conclude(
        args.out / 'table.md',
        markdown(found),
        'Mean ± standard deviation over seeds, last evaluation; paired '
        "differences with 95 % intervals by Student's t, a star off zero.",
        done,
    )


if __name__ == '__main__':
    main()
