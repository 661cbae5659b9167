"""The main job on real photographs, from data to pictures: build a sample
data set, train a small model, evaluate it, draw its attention, explain some
of its predictions, and write a summary and a report from the logs. Detection
finds trees from the air, segmentation digits painted on photographs.

After the first epoch there is a first picture; what the commands print is in
files beside their results."""

import argparse
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent
from threading import Thread
from typing import NamedTuple

import mmcv
import numpy as np

from mmaib.cli import runs
from mmaib.cli.runs import look
from mmaib.compat import report
from mmaib.evaluation.nothing_found import of_nothing
from mmaib.layers.map_changes import CHANGES
from mmaib.visualization.tables import Runs, lost, markdown, values
from mmaib.visualization.work_dirs import (
    TIMES,
    last_checkpoint,
    read_records,
    read_run,
)

ROOT = Path(__file__).resolve().parents[1]

READOUT = 'readout'  # of the baseline, which is trained first
VARIANTS = {
    READOUT: '',
    'gate': 'gate_',
    'aib-qt': 'aib-qt_',
    'aib-qt-literal': 'aib-qt-literal_',
    'aib': 'aib_',
    'baseline': '',
}
PICTURES = 16
# options that leave what is trained as it is
OF_RUNS = ('load_from=', 'default_hooks.attention.ablations=')
REFEREE = 'tools/experiments/explanations.py'
JUDGED = ('centre', 'layer-cam', 'odam', 'bottleneck')


class Demo(NamedTuple):
    """A sample data set and what is trained on it.

    Attributes:
        config: the baseline's, in `configs/sample/DATASET`.
        readout: of where the baseline looks.
        dataset: module of `mmaib.datasets`, and folder in `data`.
        images: held out, in the data set's folder.
        metrics: fields of the evaluation.
        minutes: of training, about, on one thread, a readout's with its
            base model's.
        what: for the summary.
    """

    config: str
    readout: str
    dataset: str
    images: str
    metrics: tuple[str, ...]
    minutes: int
    what: str


DEMOS = {
    'detection': Demo(
        config='faster-rcnn_lite0_fpn_6e_trees-256.py',
        readout='readout_faster-rcnn_lite0_fpn_3e_trees-256.py',
        dataset='trees',
        images='test',
        metrics=('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75'),
        minutes=10,
        what='Faster R-CNN, EfficientNet-Lite0, 256-pixel aerial photographs '
        'of\ntrees (16 held-out tiles, 243 trees). Not COCO.',
    ),
    'segmentation': Demo(
        config='upernet_lite0_1xb8-500_digits-128x128.py',
        readout='readout_upernet_lite0_1xb8-200_digits-128x128.py',
        dataset='digits',
        images='img_dir/val',
        metrics=('mIoU', 'mAcc', 'aAcc'),
        minutes=8,
        what='UPerNet, EfficientNet-Lite0, digits against photographs, 128 '
        'pixels (80\nheld-out images, 2 classes, percent). Not ADE20K.',
    ),
}


def kept_runs(config: str) -> list[dict[str, float]]:
    """What runs of a config as it is ended with, on other machines too,
    each run once."""
    found = []
    for file in sorted((ROOT / 'docs' / 'results').glob('*.jsonl')):
        for record in read_records(file):
            metrics, options = record.get('metrics'), record.get('options')
            if (
                f'{record.get("config")}.py' == config
                and metrics
                and options is not None
                and all(o.startswith(OF_RUNS) for o in options)
                and metrics not in found
            ):
                found.append(metrics)
    return found


def beside(value: float, others: Sequence[float]) -> str:
    """Where a run's value falls among those of five other runs or more."""
    others = [other for other in others if other == other]  # without NaN
    if len(others) < 5:
        return f'{len(others)} runs'
    low, high = min(others), max(others)
    where = 'below' if value < low else 'above' if value > high else 'within'
    return f'{low:.3f} to {high:.3f}: {where} ({len(others)} runs)'


def summary(
    demo: Demo,
    variant: str,
    commands: list[str],
    seconds: dict[str, float],
    losses: dict[str, float],
    found: dict[str, float],
    base: dict[str, float] | None = None,
    judged: str = '',
) -> str:
    """Markdown of what was run and what came out."""
    # a detector that finds nothing
    nothing = of_nothing(dict.fromkeys(demo.metrics, 0.0))
    found = {**nothing, **found}
    if base is not None:
        base = {**nothing, **base}
    metric = demo.metrics[0]
    worth = [name for name in found if name.startswith('attention/')]
    # not of the base model, which has lines of its own
    worth += [
        f'ablation/{change}/{metric}'
        for change in CHANGES
        if f'ablation/{change}/{metric}' in found
    ]
    about_maps = (
        '`attention/auc` is of the map against what is to be found, '
        '`auc_norm` of the\nnorm of the features, `auc_centre` of the '
        'distance to the centre; `energy` is the\nshare of the map inside, '
        '`area` of the image; `ablation/...` is the metric with every map\n'
        'mirrored, flattened, shuffled: unchanged, nothing depends on '
        'where the map looks.'
    )
    trained = demo.readout if base else f'{VARIANTS[variant]}{demo.config}'
    read: dict[str, Callable[[Runs], Sequence[float]]] = {
        name: partial(values, name=name) for name in (*demo.metrics, *worth)
    }
    for change in CHANGES:
        changed = partial(lost, metric=metric, change=change)
        read[f'{metric} lost by {change}'] = changed
    figures = [['metric on the held-out images', 'value', 'in other runs']]
    for ended, config, suffix in (
        (base, demo.config, ' of the base model, without the gate'),
        (found, trained, ''),
    ):
        others = {
            i: {**nothing, **run} for i, run in enumerate(kept_runs(config))
        }
        for name, of in read.items():
            for value in of({0: ended} if ended else {}):
                shown = f'{value:.3f}', beside(value, of(others))
                figures.append([f'{name}{suffix}', *shown])
    tables = [figures]
    for head, show, last in (
        (['last training step', 'value'], '{:.4g}', losses),
        (['step', 'seconds'], '{:.0f}', seconds),
    ):
        tables.append([head, *([k, show.format(v)] for k, v in last.items())])
    first, *rest = ('\n'.join(markdown(rows)) for rows in tables)
    blocks = [
        f'# Demo: {variant}',
        demo.what,
        first,
        about_maps if worth else 'No map.',
        *rest,
        judged or 'No explanations of single detections.',
        "Commands, in the checkout's folder:",
        indent('\n'.join(['source tools/activate', *commands]), '    '),
        'Versions:',
        indent(report()[0], '    '),
    ]
    return '\n\n'.join(blocks) + '\n'


def run(commands: list[str], *words: object, log: Path) -> float:
    """Run a program in the checkout, with the data sets that the demo makes;
    seconds it took."""
    env = {'MMAIB_DATA': 'data'}
    return runs.run(commands, *words, cwd=ROOT, env=env, log=ROOT / log)


def first_sight(demo: Demo, config: Path, work_dir: Path, out: Path) -> None:
    """Beside a training, what its first checkpoint predicts."""
    while not (saved := [*(ROOT / work_dir).glob('[ei]*_*.pth')]):
        time.sleep(1)
    kept = out / 'first.pth'  # the training removes its own
    shutil.copy(saved[0], ROOT / kept)
    try:
        explain([], demo, config, kept, out, 1)
    except SystemExit as error:
        print(f'no first picture: {error}', flush=True)
    (ROOT / kept).unlink()


def explain(
    commands: list[str],
    demo: Demo,
    config: Path,
    checkpoint: Path,
    out: Path,
    count: int,
) -> float:
    """What a plain model's predictions on some test images rest on: a page,
    and a picture of the first prediction; seconds it took."""
    page, folder = out / 'explained', Path('data') / demo.dataset / demo.images
    shutil.rmtree(ROOT / page, ignore_errors=True)
    files = sorted((ROOT / folder).iterdir())
    images = [folder / file.name for file in files[3 :: len(files) // count]]
    seconds = run(
        commands, '-m', 'mmaib', 'explain', config, checkpoint, *images,
        '--out', page, '--statistics', folder,
        '--max-explained', 10 if count > 1 else 1, log=out / 'explain.log',
    )  # fmt: skip
    text = (ROOT / page / 'explained.json').read_text()
    first = json.loads(text)['explanations'][0]
    name = f'{Path(first["image"]).stem}.0.png'
    plain, map_over = map(
        mmcv.imread, (ROOT / first['image'], ROOT / page / name)
    )
    if box := first['box']:
        mmcv.imshow_bboxes(plain, np.array([box]), show=False)
    file = ROOT / out / 'prediction.png'
    mmcv.imwrite(np.hstack([plain, map_over]), str(file))
    print(f'{file}: what a prediction of {checkpoint.name} rests on')
    return seconds


def judge(
    commands: list[str], config: Path, checkpoint: Path, out: Path
) -> float:
    """The referee's table of a dozen detections; seconds it took."""
    records = out / 'explanations.jsonl'
    seconds = run(
        commands, REFEREE, config, checkpoint, '--name', 'demo',
        '--records', records, '--detections', 12, '--per-image', 1,
        '--d-rise-every', 0, '--methods', *JUDGED, log=out / 'referee.log',
    )  # fmt: skip
    table = out / 'explanations.md'
    return seconds + run(commands, REFEREE, '--table', records, log=table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', choices=DEMOS, default='detection')
    parser.add_argument('--variant', choices=VARIANTS, default=READOUT)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=1)
    args = parser.parse_args()
    demo = DEMOS[args.task]
    # Relative to the checkout, as every command runs there.
    configs = Path('configs/sample') / demo.dataset
    config = configs / f'{VARIANTS[args.variant]}{demo.config}'
    out = args.out
    if (ROOT / out).exists():
        kept = out.with_name(f'{out.name}-{time.strftime("%Y%m%d-%H%M%S")}')
        (ROOT / out).rename(ROOT / kept)
        print(f'the last demo is kept as {kept}')
    data = Path('data') / demo.dataset
    commands: list[str] = []
    seconds: dict[str, float] = {}

    def step(commands: list[str], *words: object) -> float:
        return run(commands, *words, log=out / f'step_{len(commands)}.log')

    def train(config: Path, work_dir: Path, *options: str) -> float:
        return run(
            commands, '-m', 'mmaib', 'train', config, '--work-dir', work_dir,
            '--cfg-options', f'randomness.seed={args.seed}', *options,
            log=work_dir / 'stdout.log',
        )  # fmt: skip

    seconds['data set'] = step(
        commands, '-m', f'mmaib.datasets.{demo.dataset}', '--out', data
    )
    print(
        f'\ntraining: about {demo.minutes} minutes on one thread', flush=True
    )
    options, base, judged = [], None, ''
    plain = {READOUT: out / 'base', 'baseline': out}.get(args.variant)
    if plain:
        begun = demo, config, plain, out
        first = Thread(target=first_sight, args=begun, daemon=True)
        first.start()
        seconds['training of the base model'] = train(config, plain)
        first.join()
        trained = config, last_checkpoint(plain, ROOT)
    if args.variant == READOUT:
        base = read_run(ROOT / trained[1].parent).metrics
        options = [f'load_from={trained[1]}']
        config = configs / demo.readout
    if plain != out:
        seconds['training'] = train(config, out, *options)
    checkpoint = last_checkpoint(out, ROOT)
    seconds['evaluation'] = step(
        commands, '-m', 'mmaib', 'test', config, checkpoint,
        '--work-dir', out / 'evaluation',
    )  # fmt: skip
    if plain:
        seconds['explanations'] = explain(commands, demo, *trained, out, 4)
    if plain and args.task == 'detection':
        seconds['referee of explanations'] = judge(commands, *trained, out)
        judged = (ROOT / out / 'explanations.md').read_text()
    pictures = 0 if args.variant == 'baseline' else PICTURES
    title = f'Demo: {args.variant}'
    seconds.update(
        look(commands, config, checkpoint, out, title, pictures, step)
    )
    done = read_run(ROOT / out)
    losses = {
        name: [*steps.values()][-1]
        for name, steps in done.training.items()
        if name not in TIMES
    }
    text = summary(
        demo, args.variant, commands, seconds, losses, done.metrics, base,
        judged,
    )  # fmt: skip
    (ROOT / out / 'summary.md').write_text(text)
    print(f'\n{text}\nwritten to {out}/summary.md')
    print(f'open in a browser: {ROOT / out / "report.html"}')
    if plain:
        print(f'and click boxes: {ROOT / out / "explained/explained.html"}')
    print(
        'next, with a config of yours:\n'
        f'  source {shlex.quote(str(ROOT / "tools" / "activate"))}\n'
        '  mmaib train CONFIG'
    )


if __name__ == '__main__':
    main()
