"""Calibrators, fitted on predictions that were held out: from a model's
predictions to their log-probabilities, ``(n, C)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mmaib.evaluation import scoring_rules
from mmaib.evaluation.calibration_metric import Predictions
from mmaib.evaluation.scoring_rules import log_of

Calibrator = Callable[[Predictions], Tensor]
# predictions, below which a group has no calibrator of its own
FEWEST = 30


def at_temperature(log_probs: Tensor, temperature: float) -> Tensor:
    """``log softmax(log p / T)`` (Guo et al., ICML 2017) of ``(n, C)``
    log-probabilities or logits; above 1 it makes a model less sure.

    Example:
        >>> at_temperature(torch.tensor([[0.8, 0.2]]).log(), 2.0).exp()
        tensor([[0.6667, 0.3333]])
    """
    return (log_probs / temperature).log_softmax(1)


def fitted_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature of the least NLL of ``(n, C)`` log-probabilities and
    ``(n,)`` labels, searched over 1 / T, in which it is convex; from 0.05 to
    100.

    Example:
        >>> sure = log_of(torch.tensor([[0.9, 0.1]] * 4))
        >>> round(fitted_temperature(sure, torch.tensor([0, 0, 0, 1])), 3)
        2.0

    Raises:
        ValueError: if there is no prediction.
    """
    if not len(labels):
        raise ValueError('fitted_temperature: no predictions')

    def nll(inverse: float) -> float:
        return float(
            scoring_rules(at_temperature(log_probs, 1 / inverse), labels)[0]
        )

    found = minimize_scalar(
        nll, bounds=(0.01, 20.0), method='bounded', options={'xatol': 1e-10}
    )
    return 1 / float(found.x)


def temperature(held_out: Predictions) -> Calibrator:
    """One for all (Guo et al., *On Calibration of Modern Neural Networks*,
    ICML 2017)."""
    fitted = fitted_temperature(held_out.log_probs, held_out.labels)
    return lambda found: at_temperature(found.log_probs, fitted)


def platt(held_out: Predictions) -> Calibrator:
    """A slope and an offset of each logit that lose the least NLL: Platt's
    of two classes, vector scaling (Guo et al.) of more."""
    logits = _logits(held_out.log_probs)
    slope = torch.ones(logits.size(1), dtype=torch.double, requires_grad=True)
    offset = torch.zeros_like(slope, requires_grad=True)
    found = torch.optim.LBFGS(
        [slope, offset], max_iter=200, line_search_fn='strong_wolfe'
    )

    def nll() -> Any:
        found.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            logits * slope + offset, held_out.labels
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        found.step(nll)
    a, b = slope.detach(), offset.detach()
    return lambda found: (_logits(found.log_probs) * a + b).log_softmax(1)


def isotonic(held_out: Predictions) -> Calibrator:
    """A rising step function of each class's probability (Zadrozny and Elkan,
    KDD 2002), by scikit-learn; of more than two classes each against the
    rest, divided by their sum."""
    from sklearn.isotonic import IsotonicRegression

    probs = held_out.log_probs.double().exp().cpu().numpy()
    labels = held_out.labels.cpu().numpy()
    # no more sure than its number of predictions allows
    least = 1 / (len(labels) + 2)
    fit = partial(
        IsotonicRegression,
        y_min=least, y_max=1 - least, out_of_bounds='clip',
    )  # fmt: skip
    first = 1 if probs.shape[1] == 2 else 0
    curves = [
        fit().fit(probs[:, c], labels == c)
        for c in range(first, probs.shape[1])
    ]

    def calibrated(found: Predictions) -> Tensor:
        if not len(found.labels):  # an image without a detection
            return found.log_probs
        given = found.log_probs.double().exp().cpu().numpy()
        columns = [
            curve.predict(given[:, c])
            for c, curve in enumerate(curves, start=first)
        ]
        if first:
            columns = [1 - columns[0], *columns]
        fitted = torch.from_numpy(np.stack(columns, 1)).to(found.log_probs)
        return log_of(fitted / fitted.sum(1, keepdim=True))

    return calibrated


def by_group(
    fit: Callable[[Predictions], Calibrator],
    group_of: Callable[[Predictions], Tensor],
    held_out: Predictions,
) -> Calibrator:
    """One for each group of detections, by their class or size; that of all
    for a group with fewer than 30."""
    groups = group_of(held_out)
    numbers, counts = groups.unique(return_counts=True)
    own = {
        int(n): fit(some(held_out, groups == n))
        for n in numbers[counts >= FEWEST]
    }
    of_all = fit(held_out)

    def calibrated(found: Predictions) -> Tensor:
        result, groups = of_all(found), group_of(found)
        for n, calibrator in own.items():
            if (chosen := groups == n).any():
                result[chosen] = calibrator(some(found, chosen))
        return result

    return calibrated


def isotonic_by_class(held_out: Predictions) -> Calibrator:
    """:func:`isotonic` of the detections of each class."""

    def classes(found: Predictions) -> Tensor:
        assert found.classes is not None
        return found.classes

    return by_group(isotonic, classes, held_out)


def isotonic_by_size(held_out: Predictions) -> Calibrator:
    """:func:`isotonic` of small, middling and large boxes, a third each."""

    def areas(found: Predictions) -> Tensor:
        assert found.boxes is not None
        return found.boxes[:, 2:].prod(1)

    known = areas(held_out)
    thirds = known.quantile(known.new_tensor([1 / 3, 2 / 3]))
    return by_group(
        isotonic, lambda found: torch.bucketize(areas(found), thirds), held_out
    )


# by the arm's name; the others are a detector's alone
FITS: dict[str, Callable[[Predictions], Calibrator]] = {
    'temperature': temperature,
    'platt': platt,
    'isotonic': isotonic,
    'isotonic-by-class': isotonic_by_class,
    'isotonic-by-size': isotonic_by_size,
}
OF_DETECTORS = ('isotonic-by-class', 'isotonic-by-size')


def _logits(log_probs: Tensor) -> Tensor:
    """Logits; of two classes that of the second alone, beside 0."""
    if log_probs.size(1) > 2:
        return log_probs.double()
    logit = log_probs[:, 1:] - log_probs[:, :1]
    return torch.cat([torch.zeros_like(logit), logit], dim=1).double()


def some(found: Predictions, chosen: Tensor) -> Predictions:
    """Those of these indices, or of a mask."""
    return _each([found], lambda every: every[0][chosen.to(every[0].device)])


def joined(found: Sequence[Predictions]) -> Predictions:
    """Those of several images, on the CPU."""
    return _each(found, lambda every: torch.cat([one.cpu() for one in every]))


def _each(
    found: Sequence[Predictions], function: Callable[[list[Tensor]], Tensor]
) -> Predictions:
    fields = ('log_probs', 'labels', 'boxes', 'classes')
    columns = {name: [getattr(one, name) for one in found] for name in fields}
    own = {
        name: function(c) for name, c in columns.items() if c[0] is not None
    }
    return Predictions(**own)  # type: ignore[arg-type]
