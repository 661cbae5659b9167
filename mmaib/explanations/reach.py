"""The part of the features that a score depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .places import Features, Place
from .targets import TOLERANCE, Target

# of a level that the score does not depend on: four cells, as a group norm
# needs more than one
UNUSED = (slice(0, 2), slice(0, 2))


class Reach(NamedTuple):
    """The part of the features that a score depends on.

    Attributes:
        levels: those that it depends on.
        windows: rows and columns of every level.
        log_scores: the score by that part.
    """

    levels: list[int]
    windows: list[tuple[slice, slice]]
    log_scores: Callable[[Features], Tensor]

    def part(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The window of each level, contiguous as RoIAlign needs it."""
        return [
            x[..., rows, columns].contiguous()
            for x, (rows, columns) in zip(features, self.windows)
        ]


def gradients(
    log_scores: Callable, place: Place, features: Features, images: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The log score and its gradient by the features, zero where it does not
    depend on them.

    Raises:
        ValueError: if the head cuts the gradient off.
    """
    leaves = [x.detach().requires_grad_() for x in features]
    with torch.enable_grad():
        score = log_scores(place.to_head(tuple(leaves), images)).sum()
        if not score.requires_grad:
            raise ValueError(
                f"{type(place.model).__name__} cuts off its score's "
                f'gradient at {place.name!r}: choose another place'
            )
        found = torch.autograd.grad(score, leaves, allow_unused=True)
    return score.detach(), [
        torch.zeros_like(x) if g is None else g
        for x, g in zip(features, found)
    ]


def reach(
    target: Target,
    place: Place,
    features: Features,
    images: Tensor,
    gradient: Sequence[Tensor],
    own: Tensor,
) -> Reach:
    """What a target depends on, by its gradient. The score of a part alone is
    compared with the whole one's before it is relied on."""
    used = [(g != 0).any(1)[0].nonzero() for g in gradient]
    levels = [i for i, cells in enumerate(used) if len(cells)]

    def whole(features: Features) -> Tensor:
        return target.log_scores(place.to_head(features, images))

    full = Reach(levels, [(slice(None), slice(None))] * len(features), whole)
    if place.name != 'neck' or target.shifted is None or not levels:
        return full
    # y and x, in pixels of the input
    size = torch.tensor(images.shape[2:]).double()
    strides = [size / torch.tensor(x.shape[2:]) for x in features]
    first = [used[i].amin(0).cpu() * strides[i] for i in levels]
    last = [(used[i].amax(0).cpu() + 1) * strides[i] for i in levels]
    # on the grid of the coarsest level, so that no cell is cut
    grid = torch.stack([strides[i] for i in levels]).amax(0)
    begin = (torch.stack(first).amin(0) / grid).floor() * grid
    end = (torch.stack(last).amax(0) / grid).ceil() * grid
    windows = [UNUSED] * len(features)
    for i in levels:
        (top, left), (bottom, right) = (
            (edge / strides[i]).round().int().tolist() for edge in (begin, end)
        )
        windows[i] = slice(top, bottom), slice(left, right)
    top, left = begin.round().int().tolist()
    cropped = Reach(levels, windows, target.shifted(left, top, features))
    with torch.no_grad():
        alone = cropped.log_scores(tuple(cropped.part(features)))
    return cropped if (alone - own).abs().max() < TOLERANCE else full
