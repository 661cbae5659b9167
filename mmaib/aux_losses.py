"""The one road by which a layer's loss reaches its host's loss dict.

A layer deep inside a neck or a head calls :func:`report_loss`; the model at
the top opens :func:`collect` around the host's ``loss()`` and adds what was
reported. Nothing is kept on modules, so copies of a model, repeated steps
and interrupted ones never meet a stale graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from mmengine.dist import all_reduce_dict
from torch import Tensor

_active: list[AuxLosses] = []


class AuxLosses:
    """Losses and monitors reported within one :func:`collect`."""

    def __init__(self) -> None:
        self._reports: dict[str, list[Tensor]] = defaultdict(list)
        self.with_gradient = torch.is_grad_enabled()

    def add(self, name: str, value: Tensor) -> None:
        self._reports[name].append(value)

    def mean(self) -> dict[str, Tensor]:
        """The mean of the reports of each name, as a loss dict."""
        return {
            name: torch.stack(values).mean()
            for name, values in self._reports.items()
        }


@contextmanager
def collect() -> Iterator[AuxLosses]:
    """Gather what layers report inside the ``with``.

    Example:
        >>> with collect() as aux:
        ...     features = neck(features)
        >>> losses.update(aux.mean())
    """
    losses = AuxLosses()
    _active.append(losses)
    try:
        yield losses
    finally:
        _active.remove(losses)


def collecting(training: bool) -> bool:
    """Whether a layer shall report: a :func:`collect` is open, and this is
    no teacher's forward, without gradient, within a student's step.

    Args:
        training: whether the layer is in training.

    Raises:
        RuntimeError: if a layer in training was robbed of its gradient.
    """
    if not _active:
        return False
    if _active[-1].with_gradient and not torch.is_grad_enabled():
        if training:
            raise RuntimeError(
                'a layer that reports losses runs without gradient inside a '
                'step that has one, so its losses would teach nothing: '
                'activation checkpointing must not wrap it. Wrap the '
                'backbone (with_cp=True)'
            )
        return False
    return True


def report_loss(name: str, value: Tensor) -> None:
    """Add a loss to the host's; a no-op outside :func:`collect`.

    Reports of one name within a step are averaged (FPN levels, crops).

    Args:
        name: key in the host's loss dict. It contains ``loss``, as MMEngine
            sums just those.
        value: weighted scalar with its graph.

    Raises:
        ValueError: if ``name`` would not be summed.
    """
    if 'loss' not in name:
        raise ValueError(f"a loss key must contain 'loss', got {name!r}")
    if _active:
        _active[-1].add(name, value)


def report_scalar(name: str, value: Tensor) -> None:
    """Log a monitor beside the losses; a no-op outside :func:`collect`.

    The log shows its mean over all processes, while MMEngine logs the losses
    of the main process.

    Args:
        name: key in the log. It must not contain ``loss``, or MMEngine
            would add it to the total.
        value: scalar; it is detached.

    Raises:
        ValueError: if ``name`` would be summed into the loss.
    """
    if 'loss' in name:
        raise ValueError(
            f"a monitor's key must not contain 'loss', got {name!r}"
        )
    if _active:
        _active[-1].add(name, value.detach().float())


def require_collector(plugin: str) -> None:
    """Refuse a training step whose extra losses nobody would hear.

    Raises:
        RuntimeError: outside :func:`collect`.
    """
    if not _active:
        raise RuntimeError(
            f'{plugin} is trained inside a model that does not collect its '
            'losses, which would vanish silently. Use mmaib.AIBFasterRCNN '
            'for Faster R-CNN, mmaib.AIBEncoderDecoder for segmentation, '
            'mmaib.AIBImageClassifier for classification, '
            "type='mmaib.WithAuxLosses', "
            "base='YourModel' for any other model, or "
            '`with mmaib.aux_losses.collect():` around a bare call. (If '
            'this comes out of backward(): activation checkpointing must '
            'not wrap a module that reports losses; wrap the backbone.)'
        )


class AuxLossMixin:
    """Collect around a host model's ``loss()``; put it before the host in
    the bases.

    If the neck draws more than one map in training (L_a > 1, Eq. 12 of
    [AIB]), the host gets the samples as often: the draws are folded into the
    batch, draw by draw, and its losses are means over them.

    Raises:
        KeyError: at the first step, if the host already has a loss of a
            reported name.
    """

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        draws = getattr(getattr(self, 'neck', None), 'train_draws', 1)
        if draws > 1:
            args = (
                *args[:1],
                *(list(s) * draws for s in args[1:2]),
                *args[2:],
            )
            for name in kwargs.keys() & {'data_samples', 'batch_data_samples'}:
                kwargs[name] = list(kwargs[name]) * draws
        with collect() as aux:
            losses = super().loss(*args, **kwargs)  # type: ignore[misc]
        extra = aux.mean()
        if extra and 'loss' in losses:
            # mmpretrain's; MMEngine logs the sum under that name
            losses['loss_cls'] = losses.pop('loss')
        monitors = {k: v for k, v in extra.items() if 'loss' not in k}
        if monitors:
            all_reduce_dict(monitors, op='mean')
            extra.update(monitors)
        if clash := sorted(extra.keys() & losses.keys()):
            raise KeyError(
                f'{type(self).__name__} and mmaib both report {clash}; '
                'give the layer another `loss_name`'
            )
        losses.update(extra)
        return losses


@cache
def with_aux_losses(cls: type) -> type:
    """The class ``cls``, collecting the losses of the layers inside it.

    Args:
        cls: a host's model class, for instance mmdet's ``RetinaNet``.

    Raises:
        TypeError: if ``cls`` has no ``loss`` method to wrap.
    """
    if not (isinstance(cls, type) and callable(getattr(cls, 'loss', None))):
        raise TypeError(
            f'with_aux_losses needs a model class with a loss(), got {cls!r}'
        )
    if issubclass(cls, AuxLossMixin):
        return cls
    return type(f'WithAuxLosses{cls.__name__}', (AuxLossMixin, cls), {})
