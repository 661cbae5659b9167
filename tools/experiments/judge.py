"""A judge of explanations: a detector that has seen hidden parts.

    python tools/experiments/judge.py CONFIG CHECKPOINT --out DIR

Insertion and deletion show a model what it was never trained on, so a map may
gain by how its hidden parts look and not by what it shows. The judge is the
detector trained on, from CHECKPOINT and by CONFIG, with random parts of its
images blurred and all boxes kept: EVAL-X (Jethani et al., *Have We Learned to
Explain?*, AISTATS 2021). `explanations.py --judge DIR/epoch_6.pth` adds its
score.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from mmaib.cli.loading import read_config
from mmaib.registry import type_name

# of the mean that is applied twice, as in insertion and deletion
WIDTHS = (31, 63, 127)
CHILD = """_base_ = {base!r}
custom_imports = dict(imports=['mmaib', 'judge'])
load_from = {checkpoint!r}

train_pipeline = [
    *_base_.train_dataloader.dataset.pipeline[:-1],
    dict(type='HideParts'),
    _base_.train_dataloader.dataset.pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


@TRANSFORMS.register_module()
class HideParts(BaseTransform):
    """Blurs a random share of an image in patches of random size, which keeps
    its boxes."""

    def transform(self, results: dict) -> dict:
        image = results['img']
        height, width = image.shape[:2]
        grid = np.random.randint(4, 33)
        field = mmcv.imresize(
            np.random.rand(grid, grid).astype(np.float32), (width, height)
        )
        hidden = field < np.quantile(field, np.random.rand())
        side = int(np.random.choice(WIDTHS))
        blurred = image.astype(np.float32)
        for _ in range(2):
            blurred = cv2.blur(
                blurred, (side, side), borderType=cv2.BORDER_REFLECT_101
            )
        return dict(
            results,
            img=np.where(hidden[..., None], blurred, image).astype(
                image.dtype
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    steps = read_config(args.config).train_dataloader.dataset.pipeline
    if not type_name(steps[-1]['type']).startswith('Pack'):
        parser.error(f'{args.config}: the last training step must pack')
    args.out.mkdir(parents=True, exist_ok=True)
    child = args.out / 'judge.py'
    child.write_text(
        CHILD.format(
            base=str(args.config.resolve()),
            checkpoint=str(args.checkpoint.resolve()),
        )
    )
    # where workers find HideParts
    here = str(Path(__file__).resolve().parent)
    os.environ['PYTHONPATH'] = os.pathsep.join(
        [here, *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    command = [sys.executable, '-m', 'mmaib', 'train', str(child)]
    command += ['--work-dir', str(args.out), *options]
    sys.exit(subprocess.run(command).returncode)


if __name__ == '__main__':
    main()
