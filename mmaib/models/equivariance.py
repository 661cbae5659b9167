"""A second view of each image, in which its rectangle must lie where the
first one's went (Section 4.4 of [RECT])."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.checks import at_least, one_of, part_fields
from mmaib.functional import (
    l2_residual,
    periodic_residual,
    warp_images,
    warp_rectangles,
)
from mmaib.losses import collect, report_loss

RESIDUALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'periodic': periodic_residual,
    'l2': l2_residual,
}


class Equivariance:
    """How a second view is made, and how rectangles are compared. [RECT]
    gives the weight; the ranges are mmaib's.

    Args:
        weight: of the loss, lambda of [RECT].
        residual: ``'periodic'``, under which the names of one rectangle are
            equal, or ``'l2'`` of [RECT].
        angle: an image is turned by up to so many degrees, both ways.
        scale: smallest and largest factor of its size.
        shift: it is moved by up to this share of its sides, along both.

    Raises:
        TypeError, ValueError: if a field is out of range.
    """

    def __init__(
        self,
        weight: float = 0.1,
        residual: str = 'periodic',
        angle: float = 45.0,
        scale: Sequence[float] = (0.8, 1.25),
        shift: float = 0.15,
    ) -> None:
        self.weight = at_least('equivariance.weight', weight, 0.0)
        one_of('equivariance.residual', residual, RESIDUALS)
        self.residual = RESIDUALS[residual]
        self.angle = at_least('equivariance.angle', angle, 0.0)
        if not (
            isinstance(scale, (list, tuple))
            and len(scale) == 2
            and all(isinstance(x, (int, float)) for x in scale)
            and 0 < scale[0] <= scale[1]
        ):
            raise ValueError(
                'equivariance.scale must be two factors, the smaller first, '
                f'such as (0.8, 1.25), got {scale!r}'
            )
        self.scale = (float(scale[0]), float(scale[1]))
        self.shift = at_least('equivariance.shift', shift, 0.0)
        if shift > 0.5:
            raise ValueError(
                'equivariance.shift must be <= 0.5, or most targets lie '
                f'outside of the image and count for nothing, got {shift!r}'
            )

    @classmethod
    def from_config(cls, config: Any, model: Any) -> Equivariance | None:
        """Built from a model's field; None for None.

        Raises:
            TypeError, ValueError: if a field does not fit, or the model has
                no map with a rectangle after its backbone.
        """
        if config is None:
            return None
        fields = part_fields('equivariance', config)
        bottleneck = getattr(getattr(model, 'neck', None), 'bottleneck', None)
        attention = getattr(bottleneck, 'attention', None)
        if not hasattr(attention, 'rectangles'):
            raise ValueError(
                'equivariance needs rectangles to compare: an mmaib.AIBNeck '
                "with bottleneck.attention.type='mmaib.RectangularAttention', "
                f'got {type(attention).__name__}'
            )
        return cls(**fields)

    def warps(self, images: Tensor) -> Tensor:
        """A random warp of each image, ``(N, 4)``, by the global
        generator; see :func:`mmaib.functional.warp_images`."""
        low, high = map(math.log, self.scale)
        turn = math.radians(self.angle)
        chance = torch.rand(len(images), 4, device=images.device)
        both = 2 * chance - 1  # both ways
        return torch.stack(
            [
                turn * both[:, 0],
                (low + (high - low) * chance[:, 1]).exp(),
                self.shift * both[:, 2],
                self.shift * both[:, 3],
            ],
            1,
        )

    def report(
        self,
        model: Any,
        images: Tensor,
        first: list[tuple[Tensor, tuple[int, int]]],
    ) -> None:
        """Compare the rectangles of a first view with those of a second,
        which leaves no other trace, and report ``loss_equivariance``.

        Args:
            model: in training.
            images: of its batch.
            first: what :func:`mmaib.losses.report_rectangles` was given.
        """
        warp = self.warps(images)
        with collect() as seen, untouched_statistics(model):
            model.neck.attention_maps(
                model.backbone(warp_images(images, warp))
            )
        for (params, size), (moved, _) in zip(
            first, seen.rectangles, strict=True
        ):
            report_loss(
                'loss_equivariance', self.loss(params, moved, warp, size)
            )

    def loss(
        self,
        first: Tensor,
        second: Tensor,
        warp: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """Weighted mean residual of the rectangles whose target has its
        centre in the image.

        Args:
            first: parameters ``(N, 5)`` of the images.
            second: of the warped images.
            warp: ``(N, 4)``.
            size: H and W of the map.
        """
        target = warp_rectangles(first, warp, size)
        centre = target[..., :2].detach()
        inside = ((centre >= 0) & (centre <= 1)).all(-1).to(target.dtype)
        residual = self.residual(second, target) * inside
        return self.weight * residual.sum() / inside.sum().clamp(min=1)


@contextmanager
def untouched_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch as ever inside the ``with``, but
    their running statistics do not move, nor those of gates."""
    norms: list[Any] = [
        m
        for m in model.modules()
        if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    before = [(n.momentum, n.num_batches_tracked.clone()) for n in norms]
    gates: list[Any] = [m for m in model.modules() if hasattr(m, 'paused')]
    for norm in norms:
        norm.momentum = 0.0
    for gate in gates:
        gate.paused = True
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
        for gate in gates:
            gate.paused = False
