"""Positions of dense heads as targets: of a one-stage detector's box the one
that made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from itertools import zip_longest
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from .places import Features
from .targets import TOLERANCE, Target, name_of


def dense_log_scores(head: Any, raw: Sequence) -> list[Tensor]:
    """Log scores ``(N, A, C, H, W)`` of a dense head's levels, by what its
    forward gives: logits of classes and, where it has them, of centerness
    or objectness. A rotated head's angles are neither."""
    classes = head.cls_out_channels
    names = [*signature(head.predict_by_feat).parameters][2 : len(raw)]
    factors: Any = None
    for output, name in zip_longest(raw[2:], names):
        if 'angle' not in (name or ''):
            factors = output
            break
    found = []
    for level, logits in enumerate(raw[0]):
        logits = logits.unflatten(1, (-1, classes))
        if not getattr(head, 'use_sigmoid_cls', True):
            log = logits.log_softmax(2)[:, :, :-1]
        elif ((logits >= 0) & (logits <= 1)).all():  # a head that applied it
            log = logits.clamp(min=1e-12).log()
        else:
            log = torch.nn.functional.logsigmoid(logits)
        if factors is not None and factors[level].size(1) == log.size(1):
            factor = torch.nn.functional.logsigmoid(factors[level])
            log = log + factor[:, :, None]
        found.append(log)
    return found


def _dense(model: Any) -> tuple[Any, Callable[[Features], Any]]:
    """The head whose positions are the detections, and what it gives: the
    only one, or the last of those that refine."""
    if not hasattr(model, 'bbox_head_refine'):
        return model.bbox_head, model.bbox_head

    def forward(features: Features) -> Any:
        with patch.object(model, 'extract_feat', return_value=features):
            return model._forward(None)

    return model.bbox_head_refine[-1], forward


def position_target(
    model: Any,
    features: Features,
    sample: Any,
    box: Tensor,
    label: int,
    score: float,
) -> Target:
    """The position and prior of a dense head that made a detection, found
    again by its score."""
    head, forward = _dense(model)
    with torch.no_grad():
        raw = forward(features)
        dense = isinstance(raw, tuple) and hasattr(head, 'cls_out_channels')
        found = dense_log_scores(head, raw) if dense else []
    wanted = torch.tensor(max(score, 1e-12)).log().item()
    far = [(log[0, :, label] - wanted).abs() for log in found]
    nearest = [x.min().item() for x in far]
    level = min(range(len(far)), key=nearest.__getitem__, default=0)
    if not far or nearest[level] > TOLERANCE:
        raise ValueError(
            f'{type(head).__name__}: no position has the score of the '
            f'detection, {score:.3f}, so that it cannot be explained; '
            'explained are heads of logits a position, such as RetinaNet, '
            'FCOS, ATSS, GFL, VFNet, TOOD and YOLOX, two-stage detectors and '
            'DETRs'
        )

    where = far[level].argmin()
    index = [int(i) for i in torch.unravel_index(where, far[level].shape)]

    def score_at(anchor: int, row: int, column: int) -> Callable:
        def log_scores(features: Features) -> Tensor:
            logs = dense_log_scores(head, forward(features))
            return logs[level][:, anchor, label, row, column]

        return log_scores

    def shifted(left: int, top: int, features: Features) -> Callable:
        height, width = sample.batch_input_shape
        rows, columns = features[level].shape[2:]
        anchor, row, column = index
        return score_at(
            anchor,
            row - round(top * rows / height),
            column - round(left * columns / width),
        )

    return Target(
        label,
        name_of(model, label),
        score,
        score_at(*index),
        box.detach(),
        shifted=shifted,
    )
