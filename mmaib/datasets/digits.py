"""Digits on photographs: the sample data set of segmentation.

scikit-learn (BSD) ships 1,797 handwritten digits and two photographs. Each
image is a crop of a photograph with a few digits painted onto it, and its
mask, figure against ground, is exact, as it is what was painted. Training
takes the photographs' left parts and the first 1,397 digits, validation the
right parts and the other digits.

    python -m mmaib.datasets.digits --out data/digits

Running it again checks every file and rewrites only what is missing or
damaged. Files of other names are left alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from . import checksummed

VERSION = 1
SIDE = 128
DIGIT_SIDES = (32, 64)
NUM_DIGITS = (2, 4)
# A pixel belongs to a digit where its paint covers at least half.
COVERED = 0.5


class Split(NamedTuple):
    """Which part of the photographs and digits makes how many images."""

    name: str
    columns: slice
    digits: slice
    num_images: int


PHOTOGRAPHS = ('china.jpg', 'flower.jpg')
SPLITS = (
    Split('train', slice(0, 400), slice(0, 1397), 400),
    Split('val', slice(400, 640), slice(1397, None), 80),
)


def sources() -> tuple[np.ndarray, list[np.ndarray]]:
    """Digits ``(M, 8, 8)``, ink in [0, 1], and photographs ``(H, W, 3)``.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    if find_spec('sklearn') is None:
        raise ModuleNotFoundError(
            'digits and photographs come with a package: '
            'pip install scikit-learn==1.7.2'
        )
    from sklearn.datasets import load_digits, load_sample_image

    photographs = [load_sample_image(name) for name in PHOTOGRAPHS]
    return load_digits().images / 16, photographs


def background(
    photograph: np.ndarray, rng: np.random.Generator, side: int = SIDE
) -> Image.Image:
    """A square crop of a photograph, resized to the image's side."""
    height, width = photograph.shape[:2]
    size = int(rng.integers(side, min(height, width) + 1))
    top = int(rng.integers(0, height - size + 1))
    left = int(rng.integers(0, width - size + 1))
    crop = Image.fromarray(photograph[top : top + size, left : left + size])
    return crop.resize((side, side), Image.Resampling.BICUBIC)


def paint(
    image: np.ndarray, ink: np.ndarray, colour: np.ndarray
) -> np.ndarray:
    """Put ink ``(H, W)`` in [0, 255] on a window ``(H, W, 3)`` of an image,
    in place: strokes are opaque, their borders are not.

    Returns:
        Where it covers, ``(H, W)`` in [0, 1].
    """
    cover = np.minimum(ink.astype(float) / 128, 1)
    image[:] = (1 - cover[..., None]) * image + cover[..., None] * colour
    return cover


def compose(
    photograph: np.ndarray,
    digits: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """An image with digits that do not overlap, and its mask.

    Args:
        photograph: ``(H, W, 3)`` uint8.
        digits: ``(M, 8, 8)`` ink in [0, 1].
        rng: decides on everything.

    Returns:
        image ``(128, 128, 3)`` and mask ``(128, 128)``, both uint8, the
        mask 1 where a digit is.
    """
    image = np.asarray(background(photograph, rng), dtype=float)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    taken = np.zeros((SIDE, SIDE), dtype=bool)
    wanted = rng.integers(*NUM_DIGITS, endpoint=True)
    for _ in range(10 * wanted):
        if not wanted:
            break
        index = rng.integers(len(digits))
        side = int(rng.integers(*DIGIT_SIDES, endpoint=True))
        top, left = rng.integers(0, SIDE - side + 1, size=2)
        colour = rng.integers(0, 256, size=3)
        window = np.s_[top : top + side, left : left + side]
        if taken[window].any():
            continue
        taken[window] = True
        wanted -= 1
        drawn = Image.fromarray((digits[index] * 255).astype(np.uint8))
        drawn = drawn.resize((side, side), Image.Resampling.BICUBIC)
        cover = paint(image[window], np.asarray(drawn), colour)
        mask[window][cover >= COVERED] = 1
    return image.round().astype(np.uint8), mask


def files() -> Iterator[tuple[str, bytes]]:
    """Name and content of every image and mask."""
    digits, photographs = sources()
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng(number)
        for index in range(split.num_images):
            photograph = photographs[index % len(photographs)]
            image, mask = compose(
                photograph[:, split.columns], digits[split.digits], rng
            )
            stem = f'{split.name}/{index:04d}'
            yield f'img_dir/{stem}.jpg', encode(image, 'jpeg', quality=95)
            yield f'ann_dir/{stem}.png', encode(mask, 'png')


def encode(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def build(out: Path) -> bool:
    """Write the data set into ``out``; False if it was already there."""
    return checksummed.build(out, files(), VERSION)


def about(out: Path) -> Iterator[str]:
    for split in SPLITS:
        yield f'{out}/img_dir/{split.name}: {split.num_images} images'


if __name__ == '__main__':
    checksummed.command('digits', build, about)
