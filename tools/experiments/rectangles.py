"""Sort images by the rectangle that a model attends to (Section 6.5 of
[RECT]).

    python tools/experiments/rectangles.py CONFIG CHECKPOINT --out DIR

Over the images of the config's test set DIR gets rectangles.csv, a line a
rectangle: image, level, centre and halves of the long and the short
side, in sides of the image as the model saw it, without padding, and angle in
degrees, the long side's from the vertical, in [0, 180), as on an image that is
scaled to a square, and area; and sheet.png: the images whose rectangle lies
furthest to the left, right, top, bottom and two corners, and those of the
smallest, the largest and the most oblique one, with outlines, a colour a
level.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from interpretability import grid
from mmengine.device import get_device
from mmengine.runner import Runner

from mmaib.cli.launch import device_argument
from mmaib.cli.loading import load_model, read_config
from mmaib.evaluation.map_geometry import rectangles_on_image
from mmaib.functional.sliding import slides
from mmaib.layers import capture_attention
from mmaib.visualization.overlays import classifier_input, outlined

THUMBNAIL = 120
IN_ROW = 8


class Rectangle(NamedTuple):
    """That of one map, as a line of the table has it."""

    image: int
    level: int
    row: float
    column: float
    half_long: float
    half_short: float
    angle: float
    area: float


ORDERS: dict[str, Callable[[Rectangle], float]] = {
    'left': lambda r: r.column,
    'right': lambda r: -r.column,
    'top': lambda r: r.row,
    'bottom': lambda r: -r.row,
    'upper left': lambda r: r.row + r.column,
    'lower right': lambda r: -r.row - r.column,
    'small': lambda r: r.area,
    'large': lambda r: -r.area,
    'oblique': lambda r: abs(r.angle % 90 - 45),
}


def measured(corners: np.ndarray) -> list[float]:
    """From the centre to the area, of corners ``(4, 2)``, x and y, in sides
    of the image. Where the map is not square, they are a parallelogram's."""
    corners = corners[:, ::-1].astype(float)
    sides = [(corners[2] - corners[1]) / 2, (corners[1] - corners[0]) / 2]
    long, short = sorted(sides, key=np.linalg.norm, reverse=True)
    return [
        *corners.mean(0).tolist(),
        float(np.linalg.norm(long)),
        float(np.linalg.norm(short)),
        math.degrees(math.atan2(long[1], long[0])) % 180,
        4 * abs(float(long[0] * short[1] - long[1] * short[0])),
    ]


@torch.no_grad()
def find(model: Any, loader: Any) -> tuple[list[Rectangle], list[np.ndarray]]:
    """The rectangles of all images, and the images as thumbnails, with
    outlines.

    Raises:
        ValueError: if the model has no map with a rectangle.
    """
    if slides(model):
        raise ValueError(
            'a window that slides over the image has rectangles of its own: '
            'give --cfg-options model.test_cfg.mode=whole'
        )
    found: list[Rectangle] = []
    thumbnails: list[np.ndarray] = []
    for data in loader:
        with capture_attention(model) as maps:
            samples = model.test_step(data)
        for index, sample in enumerate(samples):
            # of which it takes the first, padded as the batch is
            images = [data['inputs'][index], *data['inputs']]
            pixels, seen = classifier_input(model, images, sample.cpu())
            meta = {**seen.metainfo, 'ori_shape': (THUMBNAIL, THUMBNAIL)}
            found += [
                Rectangle(
                    len(thumbnails),
                    level,
                    *measured(corners.numpy() / THUMBNAIL),
                )
                for level, corners in enumerate(
                    rectangles_on_image(maps, index, meta)
                )
                if corners is not None
            ]
            small = mmcv.imresize(pixels, (THUMBNAIL, THUMBNAIL))
            thumbnails.append(outlined(small, maps, index, meta))
        if not found:
            raise ValueError(
                f'{type(model).__name__} has no mmaib.RectangularAttention'
            )
    return found, thumbnails


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('config')
    add('checkpoint')
    add('--out', type=Path, required=True)
    add(
        '--device', type=device_argument, default=get_device(),
        help='default: a GPU if there is one',
    )  # fmt: skip
    add('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, args.device)
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    try:
        found, thumbnails = find(model, loader)
    except ValueError as error:
        sys.exit(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / 'rectangles.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(Rectangle._fields)
        writer.writerows(found)
    sheet = {
        name: [thumbnails[r.image] for r in sorted(found, key=key)[:IN_ROW]]
        for name, key in ORDERS.items()
    }
    grid(sheet).savefig(args.out / 'sheet.png')
    print(f'{len(found)} rectangles of {len(thumbnails)} images in {args.out}')


if __name__ == '__main__':
    main()
