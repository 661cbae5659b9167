r"""Boxes of four numbers :math:`(x_1, y_1, x_2, y_2)`, rotated ones of five
:math:`(x, y, w, h, \alpha)`, centre, sides and the angle from the x axis to
the y axis in radians, and of eight, four corners; in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from .rectangle import rectangle_corners


def _floating(boxes: Tensor) -> Tensor:
    """Whole numbers would be multiplied as such."""
    return boxes if boxes.is_floating_point() else boxes.float()


def corners(boxes: Tensor) -> Tensor:
    """The four corners, in their order around each box.

    Args:
        boxes: ``(..., 4)``, ``(..., 5)`` or ``(..., 8)``.

    Returns:
        ``(..., 4, 2)``, each x, then y.

    Example:
        >>> corners(torch.tensor([2.0, 2.0, 4.0, 2.0, 0.0]))
        tensor([[0., 1.],
                [0., 3.],
                [4., 3.],
                [4., 1.]])
    """
    boxes = _floating(boxes)
    if boxes.size(-1) == 4:
        return boxes[..., [0, 1, 0, 3, 2, 3, 2, 1]].unflatten(-1, (4, 2))
    if boxes.size(-1) == 5:
        return rectangle_corners(boxes * boxes.new_tensor([1, 1, 0.5, 0.5, 1]))
    return boxes.unflatten(-1, (4, 2))


def enclosing(boxes: Tensor) -> Tensor:
    """The smallest boxes ``(..., 4)`` around boxes.

    Example:
        >>> enclosing(torch.tensor([2.0, 2.0, 4.0, 2.0, 0.0]))
        tensor([0., 1., 4., 3.])
    """
    if boxes.size(-1) == 4:
        return boxes
    points = corners(boxes)
    return torch.cat([points.amin(-2), points.amax(-2)], -1)


def moved(boxes: Tensor, x: float, y: float) -> Tensor:
    """Boxes shifted to the right by ``x`` and down by ``y``.

    Example:
        >>> moved(torch.tensor([2.0, 2.0, 4.0, 2.0]), 1, 3)
        tensor([3., 5., 5., 5.])
    """
    boxes = _floating(boxes)
    if boxes.size(-1) == 5:
        return boxes + boxes.new_tensor([x, y, 0, 0, 0])
    return boxes + boxes.new_tensor([x, y]).repeat(boxes.size(-1) // 2)


def scaled(boxes: Tensor, x: float, y: float) -> Tensor:
    """Boxes on an image ``x`` times as wide and ``y`` times as high. A
    rotated box is sheared unless both are equal: its sides keep their
    directions' lengths, and the angle is that of the first.

    Example:
        >>> scaled(torch.tensor([2.0, 2.0, 4.0, 2.0, 0.0]), 2, 1)
        tensor([4., 2., 8., 2., 0.])
    """
    boxes = _floating(boxes)
    if boxes.size(-1) != 5:
        return boxes * boxes.new_tensor([x, y]).repeat(boxes.size(-1) // 2)
    centre, sides, angle = boxes.split([2, 2, 1], -1)
    cos, sin = angle.cos(), angle.sin()
    first, second = (
        torch.cat(along, -1).norm(dim=-1, keepdim=True)
        for along in ((x * cos, y * sin), (x * sin, y * cos))
    )
    return torch.cat(
        [
            centre * centre.new_tensor([x, y]),
            sides * torch.cat([first, second], -1),
            torch.atan2(y * sin, x * cos),
        ],
        -1,
    )
