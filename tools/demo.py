"""The main job on real photographs, from data to pictures: build a sample
data set, train a small model, evaluate it, draw its attention, and write a
summary and a report from the logs. Detection finds trees from the air,
segmentation digits painted on photographs."""

import argparse
import shlex
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmaib.cli import runs
from mmaib.cli.runs import look
from mmaib.compat import report
from mmaib.evaluation.nothing_found import of_nothing
from mmaib.visualization.tables import markdown
from mmaib.visualization.work_dirs import last_checkpoint, read_run

ROOT = Path(__file__).resolve().parents[1]

# relative to the checkout, with the data sets that it makes
run = partial(runs.run, cwd=ROOT, env={'MMAIB_DATA': 'data'})
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


class Demo(NamedTuple):
    """A sample data set and what is trained on it.

    Attributes:
        config: the baseline's, in `configs/sample/DATASET`.
        readout: of where the baseline looks.
        dataset: module of `mmaib.datasets`, and folder in `data`.
        metrics: fields of the evaluation.
        minutes: of training, about, on one thread, a readout's with its
            the base model.
        what: for the summary.
    """

    config: str
    readout: str
    dataset: str
    metrics: tuple[str, ...]
    minutes: int
    what: str


DEMOS = {
    'detection': Demo(
        config='faster-rcnn_lite0_fpn_6e_trees-256.py',
        readout='readout_faster-rcnn_lite0_fpn_3e_trees-256.py',
        dataset='trees',
        metrics=('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75'),
        minutes=10,
        what='Faster R-CNN, EfficientNet-Lite0, 256-pixel aerial photographs '
        'of\ntrees (16 held-out tiles, 243 trees). Not COCO.',
    ),
    'segmentation': Demo(
        config='upernet_lite0_1xb8-500_digits-128x128.py',
        readout='readout_upernet_lite0_1xb8-200_digits-128x128.py',
        dataset='digits',
        metrics=('mIoU', 'mAcc', 'aAcc'),
        minutes=8,
        what='UPerNet, EfficientNet-Lite0, digits against photographs, 128 '
        'pixels (80\nheld-out images, 2 classes, percent). Not ADE20K.',
    ),
}


def summary(
    demo: Demo,
    variant: str,
    commands: list[str],
    seconds: dict[str, float],
    losses: dict[str, float],
    found: dict[str, float],
    base: dict[str, float] | None = None,
) -> str:
    """Markdown of what was run and what came out."""
    # a detector that finds nothing
    nothing = of_nothing(dict.fromkeys(demo.metrics, 0.0))
    found = {**nothing, **found}
    if base is not None:
        base = {**nothing, **base}
    worth = [name for name in found if name.startswith('attention/')]
    worth += [
        name
        for name in found
        if name.startswith('ablation/')
        and name.endswith(f'/{demo.metrics[0]}')
        # the base model, which has lines of its own
        and not name.startswith('ablation/open/')
    ]
    about_maps = (
        '`attention/auc` is of the map against what is to be found, '
        '`auc_norm` of the\nnorm of the features, `auc_centre` of the '
        'distance to the centre; `energy` is the\nshare of the map inside, '
        '`area` of the image; `ablation/...` is the metric with every map\n'
        'mirrored, flattened, shuffled: unchanged, nothing depends on '
        'where the map looks.'
    )
    figures = {
        f'{name} of the base model, without the gate': base[name]
        for name in demo.metrics
        if base
    }
    figures.update({name: found[name] for name in (*demo.metrics, *worth)})
    tables = [
        markdown([head, *([k, show.format(v)] for k, v in values.items())])
        for head, show, values in (
            (['metric on the held-out images', 'value'], '{:.3f}', figures),
            (['last training step', 'value'], '{:.4g}', losses),
            (['step', 'seconds'], '{:.0f}', seconds),
        )
    ]
    parts = [
        f'# Demo: {variant}',
        '',
        demo.what,
        '',
        *tables[0],
        '',
        about_maps if worth else 'No map.',
        '',
        *tables[1],
        '',
        *tables[2],
        '',
        "Commands, in the checkout's folder:",
        '',
        '    source tools/activate',
        *(f'    {command}' for command in commands),
        '',
        'Versions:',
        '',
        *(f'    {line}' for line in report()[0].splitlines()),
        '',
    ]
    return '\n'.join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', choices=DEMOS, default='detection')
    parser.add_argument('--variant', choices=VARIANTS, default=READOUT)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'))
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
    seconds['data set'] = run(
        commands, '-m', f'mmaib.datasets.{demo.dataset}', '--out', data
    )
    print(
        f'\ntraining: about {demo.minutes} minutes on one thread', flush=True
    )
    options = ['randomness.seed=1']
    base = None
    if args.variant == READOUT:
        seconds['training of the base model'] = run(
            commands, '-m', 'mmaib', 'train', config,
            '--work-dir', out / 'base', '--cfg-options', *options,
        )  # fmt: skip
        base = read_run(ROOT / out / 'base').metrics
        options.append(f'load_from={last_checkpoint(out / "base", ROOT)}')
        config = configs / demo.readout
    seconds['training'] = run(
        commands, '-m', 'mmaib', 'train', config, '--work-dir', out,
        '--cfg-options', *options,
    )  # fmt: skip
    checkpoint = last_checkpoint(out, ROOT)
    seconds['evaluation'] = run(
        commands, '-m', 'mmaib', 'test', config, checkpoint,
        '--work-dir', out / 'evaluation',
    )  # fmt: skip
    pictures = 0 if args.variant == 'baseline' else PICTURES
    title = f'Demo: {args.variant}'
    seconds.update(
        look(commands, config, checkpoint, out, title, pictures, run)
    )
    done = read_run(ROOT / out)
    losses = {k: [*steps.values()][-1] for k, steps in done.training.items()}
    text = summary(
        demo, args.variant, commands, seconds, losses, done.metrics, base
    )
    (ROOT / out / 'summary.md').write_text(text)
    print(f'\n{text}\nwritten to {out}/summary.md')
    print(f'open in a browser: {ROOT / out / "report.html"}')
    print(
        'next, with a config of yours:\n'
        f'  source {shlex.quote(str(ROOT / "tools" / "activate"))}\n'
        '  mmaib train CONFIG'
    )


if __name__ == '__main__':
    main()
