"""The main job on real photographs, from data to pictures: build the tree
data set, train a small Faster R-CNN, evaluate it, draw its attention, and
write a summary from the logs."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mmaib.compat import report

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'aib-qt': 'aib-qt_faster-rcnn_lite0_fpn_6e_trees-256.py',
    'aib': 'aib_faster-rcnn_lite0_fpn_6e_trees-256.py',
    'baseline': 'faster-rcnn_lite0_fpn_6e_trees-256.py',
}
PICTURES = 12
METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')


def run(commands: list[str], *args: object) -> float:
    """Run one of our tools with its output visible; seconds it took.

    Raises:
        SystemExit: with the command, if it fails.
    """
    words = [sys.executable, *map(str, args)]
    commands.append(' '.join(['python', *words[1:]]))
    print(f'\n== {commands[-1]}', flush=True)
    begun = time.perf_counter()
    env = {**os.environ, 'MMAIB_DATA': 'data'}
    if subprocess.run(words, cwd=ROOT, env=env).returncode:
        sys.exit(f'demo stopped: this command failed\n  {commands[-1]}')
    return time.perf_counter() - begun


def last_losses(work_dir: Path) -> dict[str, float]:
    """Losses and monitors of the last logged training step."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    entries = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    last = [entry for entry in entries if 'loss' in entry][-1]
    skipped = {'lr', 'base_lr', 'epoch', 'iter', 'step'}
    return {k: v for k, v in last.items() if k not in skipped}


def metrics(test_dir: Path) -> dict[str, float]:
    """What the evaluation wrote."""
    (path,) = test_dir.glob('*/*.json')
    return json.loads(path.read_text())


def summary(
    variant: str,
    commands: list[str],
    seconds: dict[str, float],
    losses: dict[str, float],
    found: dict[str, float],
) -> str:
    """Markdown of what was run and what came out."""
    parts = [
        f'# Demo: {variant}',
        '',
        'Faster R-CNN, EfficientNet-Lite0, 256-pixel aerial photographs of',
        'trees (16 held-out tiles, 243 trees). Not COCO.',
        '',
        '| metric on the held-out tiles | value |',
        '|---|---|',
        *(f'| {name} | {found[name]:.3f} |' for name in METRICS),
        '',
        '| last training step | value |',
        '|---|---|',
        *(f'| {name} | {value:.4g} |' for name, value in losses.items()),
        '',
        '| step | seconds |',
        '|---|---|',
        *(f'| {name} | {value:.0f} |' for name, value in seconds.items()),
        '',
        'Commands:',
        '',
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
    parser.add_argument('--variant', choices=CONFIGS, default='aib-qt')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'))
    args = parser.parse_args()
    # Relative to the checkout, as every command runs there.
    config = Path('configs/sample') / CONFIGS[args.variant]
    out = args.out
    if (ROOT / out).exists():
        kept = out.with_name(f'{out.name}-{time.strftime("%Y%m%d-%H%M%S")}')
        (ROOT / out).rename(ROOT / kept)
        print(f'the last demo is kept as {kept}')
    data = Path('data/trees')
    commands: list[str] = []
    seconds: dict[str, float] = {}
    seconds['data set'] = run(
        commands, '-m', 'mmaib.datasets.trees', '--out', data
    )
    print('\ntraining: about 7 minutes on one thread', flush=True)
    seconds['training'] = run(
        commands, 'tools/train.py', config, '--work-dir', out,
        '--cfg-options', 'randomness.seed=1',
    )  # fmt: skip
    checkpoint = Path((ROOT / out / 'last_checkpoint').read_text().strip())
    checkpoint = out / checkpoint.name
    seconds['evaluation'] = run(
        commands, 'tools/test.py', config, checkpoint,
        '--work-dir', out / 'evaluation',
    )  # fmt: skip
    if args.variant != 'baseline':
        seconds['pictures'] = run(
            commands, 'tools/analysis_tools/attention.py', config, checkpoint,
            data / 'test', '--out', out / 'attention',
            '--max-images', PICTURES,
        )  # fmt: skip
    text = summary(
        args.variant,
        commands,
        seconds,
        last_losses(ROOT / out),
        metrics(ROOT / out / 'evaluation'),
    )
    (ROOT / out / 'summary.md').write_text(text)
    print(f'\n{text}\nwritten to {out}/summary.md', flush=True)


if __name__ == '__main__':
    main()
