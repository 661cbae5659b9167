"""Auxiliary losses of layers, and what collects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from mmaib.contexts import ContextStack

# a value and its weight
Report = tuple[Tensor, float | Tensor]


class AuxLosses:
    """Losses and monitors reported within one :func:`collect`.

    Args:
        monitors: whether monitors are wanted.

    Attributes:
        rectangles: parameters ``(N, 5)`` of each map that is a rectangle,
            and the size of its grid, level by level.
    """

    def __init__(self, monitors: bool = True) -> None:
        self.monitors = monitors
        # by name, then by part
        self._reports: dict[str, dict[Any, list[Report]]] = {}
        self.rectangles: list[tuple[Tensor, tuple[int, int]]] = []
        self.with_gradient = torch.is_grad_enabled()

    def add(
        self,
        name: str,
        value: Tensor,
        weight: float | Tensor,
        part: object = None,
    ) -> None:
        parts = self._reports.setdefault(name, {})
        parts.setdefault(part, []).append((value, weight))

    def mean(self) -> dict[str, Tensor]:
        """The weighted mean of the reports of each name, summed over its
        parts if it has any, as a loss dict."""
        return {
            name: reduce(torch.add, map(_weighted_mean, parts.values()))
            for name, parts in self._reports.items()
        }


_active: ContextStack[AuxLosses] = ContextStack('mmaib.losses')


def _weighted_mean(reports: Sequence[Report]) -> Tensor:
    if len(reports) == 1:
        return reports[0][0]
    total = sum(weight for _, weight in reports)
    shares = [value * (weight / total) for value, weight in reports]
    return torch.stack(shares).sum()


@contextmanager
def collect(monitors: bool = True) -> Iterator[AuxLosses]:
    """Gather what layers report inside the ``with``.

    Args:
        monitors: whether monitors are wanted too, in a step that is logged.

    Example:
        >>> with collect() as aux:  # around a forward of layers that report
        ...     report_loss('loss_kl', torch.tensor(0.25))
        ...     report_loss('loss_kl', torch.tensor(0.75))
        >>> aux.mean()
        {'loss_kl': tensor(0.5000)}
    """
    with _active.open(AuxLosses(monitors)) as losses:
        yield losses


class Reporter:
    """Base of the layers that report losses, which collectors, warm-up hooks
    and checks look for.

    Attributes:
        beta: weight of the layer's KL, if it has one.
        max_maps: how many maps it can draw for an image, None without limit.
    """

    beta: float = 0.0
    max_maps: int | None = None


def collecting(training: bool) -> bool:
    """Whether a layer shall report: a :func:`collect` is open, and this is
    no teacher's forward, without gradient, within a student's step.

    Args:
        training: whether the layer is in training.

    Raises:
        RuntimeError: if a layer in training runs under ``no_grad``.
    """
    losses = _active.innermost()
    if losses is None:
        return False
    if losses.with_gradient and not torch.is_grad_enabled():
        if training:
            raise RuntimeError(
                'a layer that reports losses runs without gradient inside a '
                'step that has one, so its losses would teach nothing: '
                'activation checkpointing must not wrap it. Wrap the '
                'backbone (with_cp=True); for attention inside its blocks '
                'leave with_cp out, or attend after a stage of them '
                "(type='mmaib.AttendedBackbone', at='layer4')"
            )
        return False
    return True


def monitoring() -> bool:
    """Whether what :func:`report_scalar` is given is wanted."""
    losses = _active.innermost()
    return losses is not None and losses.monitors


def report_loss(
    name: str, value: Tensor, weight: float | Tensor = 1.0
) -> None:
    """Add a loss to the base model's; a no-op outside :func:`collect`.

    Reports of one name within a step are averaged (FPN levels, crops).

    Args:
        name: key in the base model's loss dict. It contains ``loss``, as
            MMEngine sums just those.
        value: scalar with its graph, times its weight in the loss.
        weight: in the mean of the reports.

    Raises:
        ValueError: if ``name`` would not be summed.
    """
    if 'loss' not in name:
        raise ValueError(f"a loss key must contain 'loss', got {name!r}")
    if losses := _active.innermost():
        losses.add(name, value, weight)


def report_scalar(
    name: str, value: Tensor, weight: float | Tensor = 1.0, part: object = None
) -> None:
    """Log a monitor beside the losses; a no-op where none is wanted, see
    :func:`monitoring`.

    The log shows its mean over all processes, while MMEngine logs the losses
    of the main process.

    Args:
        name: key in the log. It must not contain ``loss``, or MMEngine
            would add it to the total.
        value: scalar; it is detached.
        weight: in the mean of the reports.
        part: of a sum, such as the layer: the mean of its reports is added
            to those of the other parts.

    Raises:
        ValueError: if ``name`` would be summed into the loss.
    """
    if 'loss' in name:
        raise ValueError(
            f"a monitor's key must not contain 'loss', got {name!r}"
        )
    losses = _active.innermost()
    if losses is not None and losses.monitors:
        losses.add(name, value.detach().float(), weight, part)


def report_rectangles(params: Tensor, size: tuple[int, int]) -> None:
    """Tell the model where the maps lie; a no-op outside :func:`collect`.

    Args:
        params: of rectangles, ``(N, 5)``, with their graph.
        size: H and W of the map.
    """
    if losses := _active.innermost():
        losses.rectangles.append((params, size))


def require_collector(plugin: str) -> None:
    """Refuse a training step whose extra losses would be lost.

    Raises:
        RuntimeError: outside :func:`collect`.
    """
    if _active.innermost() is None:
        raise RuntimeError(
            f'{plugin} is trained inside a model that does not collect its '
            'losses, which would vanish silently. Use mmaib.AIBFasterRCNN '
            'for Faster R-CNN, mmaib.AIBEncoderDecoder for segmentation, '
            'mmaib.AIBImageClassifier for classification, '
            "type='mmaib.WithAuxLosses', "
            "base='YourModel' for any other model, or "
            '`with mmaib.losses.collect():` around a bare call. (If '
            'this comes out of backward(): activation checkpointing must '
            'not wrap a module that reports losses; wrap the backbone. If the '
            'model is one of these: what runs its parts outside loss(), as '
            'semi-supervised models do, is not collected.)'
        )
