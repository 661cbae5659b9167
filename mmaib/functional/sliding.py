"""The windows that a segmentor slides over an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .levels import resize


def slides(model: Any) -> bool:
    """Whether a model sees an image window by window."""
    return (getattr(model, 'test_cfg', None) or {}).get('mode') == 'slide'


def windows(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """Rows and columns of mmseg's sliding windows, in its order.

    Args:
        size: height and width of the image.
        crop: of a window.
        stride: between windows.
    """
    spans = []
    for length, side, step in zip(size, crop, stride):
        count = max(length - side + step - 1, 0) // step + 1
        ends = [min(i * step + side, length) for i in range(count)]
        spans.append([slice(max(end - side, 0), end) for end in ends])
    return [(rows, columns) for rows in spans[0] for columns in spans[1]]


def stitched(
    parts: Sequence[Tensor],
    boxes: Sequence[tuple[slice, slice]],
    size: tuple[int, int],
    place: Callable = resize,
) -> Tensor:
    """The mean over windows, each placed in its box.

    Args:
        parts: a map ``(N, C, h, w)`` a window.
        boxes: what :func:`windows` gives.
        size: height and width of the whole.
        place: resizes a map to its box.
    """
    total = parts[0].new_zeros(*parts[0].shape[:2], *size)
    count = torch.zeros_like(total)
    for part, (rows, columns) in zip(parts, boxes):
        box = (rows.stop - rows.start, columns.stop - columns.start)
        total[..., rows, columns] += place(part, box)
        count[..., rows, columns] += 1
    return total / count
