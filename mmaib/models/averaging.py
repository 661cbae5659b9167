"""``test_draws`` for base models without a class in mmaib: samples are
folded into the batch after the neck, and what the head gives is averaged
before it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmaib.contexts import in_this_thread
from mmaib.layers.image_cells import next_window
from mmaib.sampling.draws import mean_over_draws

from .known import OUTPUTS, find
from .wrapping import Mixin


class SegmentorDraws(Mixin):
    """Logits averaged in each image or window."""

    def encode_decode(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        draws = self.test_draws.open(inputs.device)
        with draws, next_window():
            logits = super().encode_decode(inputs, *args, **kwargs)
        return mean_over_draws(logits, len(inputs))


class DenseDetectorDraws(Mixin):
    """Scores and boxes averaged in each position, before the NMS."""

    def predict(self, batch_inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.test_draws.mean:
            return super().predict(batch_inputs, *args, **kwargs)
        head = self.bbox_head
        draws = self.test_draws.open(batch_inputs.device)
        with draws, averaged(head, len(batch_inputs)):
            return super().predict(batch_inputs, *args, **kwargs)


@contextmanager
def averaged(head: nn.Module, batch: int) -> Iterator[None]:
    """Let a head give means over the draws in its batch.

    Args:
        head: given a feature ``(L * N, C, H, W)`` a level first.
        batch: N.
    """

    def hook(_: nn.Module, args: tuple, out: Any) -> Any:
        rows = len(args[0][0])

        def mean(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(mean(item) for item in value)
            if isinstance(value, Tensor) and value.shape[:1] == (rows,):
                return mean_over_draws(value, batch)
            return value

        return mean(out)

    with head.register_forward_hook(in_this_thread(hook)):
        yield


def draws_mixin(cls: type) -> type | None:
    """How a class of a base library averages samples, None if it cannot."""
    return MIXINS.get(find(OUTPUTS, cls))


def why_not(cls: type) -> str:
    """Why a class of a base library has no :func:`draws_mixin`."""
    if find(OUTPUTS, cls) == 'set':
        return (
            'set predictors cannot be averaged: a query may match different '
            'objects in each sample'
        )
    if draws_mixin(cls):
        return (
            'its class is not set up to average draws: take '
            "type='mmaib.WithAuxLosses'"
        )
    return (
        'it has no one output before the decoding that could be '
        'averaged; mmaib.AIBFasterRCNN, mmaib.AIBCascadeRCNN, '
        'mmaib.AIBEncoderDecoder, mmaib.AIBImageClassifier and one-stage '
        'detectors have'
    )


MIXINS: dict[str | None, type] = {
    'pixels': SegmentorDraws,
    'anchors': DenseDetectorDraws,
}
