"""Sort images by the rectangle that a model attends to (Section 6.5 of
[RECT]).

    python tools/experiments/rectangles.py CONFIG CHECKPOINT --out DIR

Over the images of the config's test set DIR gets rectangles.csv, a line a
rectangle: image, level, centre and halves of the long and the short
side, in sides of the image as the model saw it, padding included, and angle in
degrees, the long side's from the vertical, in [0, 180), as on an image that is
scaled to a square, and area; and sheet.png: the images whose rectangle lies
furthest to the left, right, top, bottom and two corners, and those of the
smallest, the largest and the most oblique one, with its outline.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from interpretability import grid
from matplotlib.figure import Figure
from mmengine.device import get_device
from mmengine.runner import Runner
from torch.nn.functional import pad

from mmaib.cli.cfg_options import read_config
from mmaib.cli.launch import device_argument
from mmaib.cli.loading import load_model
from mmaib.evaluation.map_geometry import padded_size
from mmaib.functional import rectangle_corners
from mmaib.functional.sliding import slides
from mmaib.losses import collect

THUMBNAIL = 120


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
    corners: np.ndarray  # (4, 2), rows and columns, in sides of the image


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


def on_image(params: torch.Tensor, size: tuple[int, int]) -> list[Any]:
    """Of one rectangle ``(5,)`` of a map of that size, from the middle of its
    first and last cells to the sides of the image, padding included. Where
    the map is not square, that is a parallelogram, which has its sides."""
    scale = np.array([max(n - 1, 1) / n for n in size])
    corners = 0.5 + (rectangle_corners(params).cpu().numpy() - 0.5) * scale
    centre = corners.mean(0)
    sides = [(corners[2] - corners[1]) / 2, (corners[1] - corners[0]) / 2]
    long, short = sorted(sides, key=np.linalg.norm, reverse=True)
    return [
        *centre.tolist(),
        float(np.linalg.norm(long)),
        float(np.linalg.norm(short)),
        math.degrees(math.atan2(long[1], long[0])) % 180,
        4 * abs(float(long[0] * short[1] - long[1] * short[0])),
        corners,
    ]


@torch.no_grad()
def find(model: Any, loader: Any) -> tuple[list[Rectangle], list[np.ndarray]]:
    """The rectangles of all images, and the images as thumbnails.

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
        with collect() as seen:
            samples = model.test_step(data)
        if not seen.rectangles:
            raise ValueError(
                f'{type(model).__name__} has no mmaib.RectangularAttention'
            )
        for level, (params, size) in enumerate(seen.rectangles):
            found += [
                Rectangle(image, level, *on_image(values, size))
                for image, values in enumerate(
                    params.float().cpu(), len(thumbnails)
                )
            ]
        for image, sample in zip(data['inputs'], samples, strict=True):
            # files load as BGR, arrays are RGB
            image = image.flip(0) if 'img_path' in sample else image
            height, width = padded_size(sample.metainfo)
            beyond = (0, width - image.size(2), 0, height - image.size(1))
            pixels = pad(image, beyond).permute(1, 2, 0).byte().cpu().numpy()
            thumbnails.append(mmcv.imresize(pixels, (THUMBNAIL, THUMBNAIL)))
    return found, thumbnails


def sheet(
    rectangles: list[Rectangle], thumbnails: list[np.ndarray], count: int
) -> Figure:
    """A row for each of ``ORDERS``, its first images with their outline."""
    rows = {}
    for name, key in ORDERS.items():
        first = sorted(rectangles, key=key)[:count]
        pictures = [thumbnails[r.image].copy() for r in first]
        for picture, rectangle in zip(pictures, first):
            outline = (THUMBNAIL * rectangle.corners[:, ::-1]).round()
            cv2.polylines(picture, [outline.astype(int)], True, (255, 0, 0))
        rows[name] = pictures
    return grid(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('config')
    add('checkpoint')
    add('--out', type=Path, required=True)
    add('--count', type=int, default=8, help='images a row')
    add('--level', type=int, default=0, help='of the rectangles on the sheet')
    add(
        '--device', type=device_argument, default=get_device(),
        help='default: a GPU if there is one',
    )  # fmt: skip
    add('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f'--count must be >= 1, got {args.count}')
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, args.device)
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    try:
        found, thumbnails = find(model, loader)
    except ValueError as error:
        sys.exit(str(error))
    shown = [r for r in found if r.level == args.level]
    if not shown:
        parser.error(
            f'--level must be 0 to {found[-1].level}, got {args.level}'
        )
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / 'rectangles.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(Rectangle._fields[:-1])
        writer.writerows(line[:-1] for line in found)
    sheet(shown, thumbnails, args.count).savefig(args.out / 'sheet.png')
    print(f'{len(found)} rectangles of {len(thumbnails)} images in {args.out}')


if __name__ == '__main__':
    main()
