from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from mmaib.checks import at_least, one_of
from mmaib.registry import DATASETS

from . import digits

SIDE = 48
DIGIT_SIDES = (16, 30)
MAX_ANGLE = 30  # degrees
# pieces of other digits, so that ink alone does not show where the digit is
PIECES, PIECE_SIDES = 5, (6, 12)
# light ink on darker photographs: a thousand images teach no more
DIMMED, COLOURS = 0.6, (200, 256)


class Painted(NamedTuple):
    """An image ``(48, 48, 3)``, uint8, the digit on it and its box, left,
    top, right and bottom."""

    image: np.ndarray
    label: int
    box: np.ndarray


@DATASETS.register_module()
class ClutteredDigits(BaseDataset):
    """One digit of scikit-learn's on a photograph with clutter, for
    classifiers whose maps shall find it: moved, scaled by up to two and
    turned by up to 30 degrees, between pieces of other digits. Ink is light,
    photographs are dimmed.

    The images are made when the data set is, the same ones each time, in
    seconds; nothing is downloaded. Digits and parts of the photographs of
    training and validation differ, as in :mod:`mmaib.datasets.digits`.

    Args:
        split: ``'train'`` or ``'val'``.
        num_images: how many.
        kwargs: of MMEngine's ``BaseDataset``.

    Shape:
        a sample has ``img`` ``(48, 48, 3)``, uint8, ``gt_label`` and the
        digit's box ``gt_bboxes`` ``(1, 4)``: left, top, right and bottom.

    Raises:
        ModuleNotFoundError: without scikit-learn, naming what to install.
        ValueError: if a field does not fit.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(
        self, split: str = 'train', num_images: int = 1500, **kwargs: Any
    ) -> None:
        names = [known.name for known in digits.SPLITS]
        self.split = digits.SPLITS[names.index(one_of('split', split, names))]
        self.num_images = at_least('num_images', num_images, 1)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        from sklearn.datasets import load_digits

        ink, photographs = digits.sources()
        labels = load_digits().target[self.split.digits]
        ink = ink[self.split.digits]
        rng = np.random.default_rng(digits.SPLITS.index(self.split))
        samples = []
        for number in range(self.num_images):
            photograph = photographs[number % len(photographs)]
            ground = photograph[:, self.split.columns]
            image, label, box = compose(ground, ink, labels, rng)
            sample = dict(img=image, gt_label=label, gt_bboxes=box[None])
            shape = (SIDE, SIDE)
            samples.append(dict(sample, img_shape=shape, ori_shape=shape))
        return samples


def compose(
    photograph: np.ndarray,
    ink: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
) -> Painted:
    """A digit between pieces of others, on a crop of a photograph.

    Args:
        photograph: ``(H, W, 3)`` uint8.
        ink: of digits, ``(M, 8, 8)`` in [0, 1].
        labels: of them.
        rng: decides on everything.
    """
    ground = digits.background(photograph, rng, SIDE)
    image = DIMMED * np.asarray(ground, dtype=float)
    for _ in range(PIECES):
        row, column = rng.integers(0, 5, size=2)
        other = ink[rng.integers(len(ink))]
        piece = other[row : row + 4, column : column + 4]
        _place(image, piece, PIECE_SIDES, rng)
    index = int(rng.integers(len(ink)))
    cover = _place(image, ink[index], DIGIT_SIDES, rng)
    rows, columns = (np.flatnonzero(cover.any(axis)) for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return Painted(
        image.round().astype(np.uint8),
        int(labels[index]),
        np.array(box, np.float32),
    )


def _place(
    image: np.ndarray,
    ink: np.ndarray,
    sides: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Paint scaled and turned ink somewhere; where it covers the image."""
    side = int(rng.integers(*sides, endpoint=True))
    drawn = Image.fromarray((ink * 255).astype(np.uint8))
    drawn = drawn.resize((side, side), Image.Resampling.BICUBIC)
    angle = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    drawn = drawn.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    height, width = drawn.height, drawn.width
    top = int(rng.integers(0, SIDE - height + 1))
    left = int(rng.integers(0, SIDE - width + 1))
    window = np.s_[top : top + height, left : left + width]
    colour = rng.integers(*COLOURS, size=3)
    cover = np.zeros((SIDE, SIDE), dtype=bool)
    painted = digits.paint(image[window], np.asarray(drawn), colour)
    cover[window] = painted >= digits.COVERED
    return cover
