"""How good a map of one statement is, whoever made it.

Insertion and deletion show the model ever more, or ever less, of the image
in the map's order, up to one and a half times the box's area; what is hidden
is blurred until the statement does not hold. Each is measured with the score
at the fixed box, which favours maps inside it, and with the detector run
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from mmaib.evaluation.ground_truth import box_overlaps
from mmaib.explanations.bottleneck import Gate
from mmaib.explanations.detections import predicted
from mmaib.explanations.places import Features, Place
from mmaib.explanations.targets import Target
from mmaib.layers.map_changes import reordered

STEPS = 12
AREA = 1.5


def blank(images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """An image on which the statement does not hold: blurred, by a mean of
    31, 63, 127 or 255 pixels applied twice, the narrowest that halves its
    probability; or of one colour. A large object is still found in an image
    whose details alone are gone, and no order of its pixels would matter.

    Args:
        images: ``(1, 3, H, W)``.
        score: of the statement, on images.
    """
    enough = score(images) / 2
    for width in (31, 63, 127, 255):
        blurred = images
        for size in 2 * [(width, 1), (1, width)]:
            rows, columns = (
                min(n // 2, side - 1)
                for n, side in zip(size, images.shape[2:])
            )
            padded = F.pad(
                blurred, (columns, columns, rows, rows), mode='reflect'
            )
            blurred = F.avg_pool2d(padded, (2 * rows + 1, 2 * columns + 1), 1)
        if score(blurred) < enough:
            return blurred
    return images.mean((2, 3), keepdim=True).expand_as(images)


def changed_images(
    order: Tensor,
    images: Tensor,
    blanked: Tensor,
    area: float,
) -> tuple[Tensor, Tensor]:
    """The images of deletion and of insertion, ``STEPS + 1`` each.

    Args:
        order: the map ``(H, W)``.
        images: ``(1, 3, H, W)``.
        blanked: what is seen of them where they are hidden.
        area: of the last step, in pixels.
    """
    noise = torch.rand(order.shape, generator=torch.Generator().manual_seed(0))
    # ties in a random order, the same for every map
    ranked = np.lexsort((noise.flatten(), -order.flatten().double().numpy()))
    place = np.empty(order.numel())
    place[ranked] = np.arange(order.numel())
    rank = torch.from_numpy(place).view(order.shape).to(images.device)
    counts = np.linspace(0, min(order.numel(), area), STEPS + 1).astype(int)
    shown = torch.stack([rank < count for count in counts])[:, None]
    return (
        torch.where(shown, blanked, images),
        torch.where(shown, images, blanked),
    )


def detected(
    model: Any, place: Place, target: Target, sample: Any
) -> Callable[[Tensor], Tensor]:
    """The score with the detector run again: the best product of IoU with the
    box and probability, over what it finds of the class (D-RISE)."""

    own = target.box
    assert own is not None

    @torch.no_grad()
    def score(images: Tensor) -> Tensor:
        features = place.to_head(place.features(images), images)
        found = []
        for seen in predicted(model, features, [sample] * len(images)):
            of_class = seen[seen.labels == target.label]
            boxes = of_class.bboxes
            overlap = box_overlaps(boxes, own[None])[:, 0] * of_class.scores
            found.append(overlap.max() if len(boxes) else overlap.sum())
        return torch.stack(found)

    return score


def insertion_deletion(
    order: Tensor,
    images: Tensor,
    blanked: Tensor,
    area: float,
    scores: Sequence[Callable[[Tensor], Tensor]],
) -> list[tuple[float, float]]:
    """Areas under the curves of insertion (high is good) and deletion (low
    is good), in [0, 1], by each of these scores."""
    deleted, inserted = changed_images(order, images, blanked, area)
    found = []
    for score in scores:
        curves = []
        for sequence in (inserted, deleted):
            values = score(sequence)
            curves.append(float(torch.trapezoid(values) / (len(values) - 1)))
        found.append((curves[0], curves[1]))
    return found


@torch.no_grad()
def kept_at_equal_bits(
    gate: Gate,
    openness: Sequence[Tensor],
    features: Features,
    orders: Sequence[Tensor],
) -> list[float]:
    """The probability after a bottleneck's gate when its openness stands,
    within each level, in the order of each of these maps, pooled to the
    level's cells, as many bits passing as by its own.

    Args:
        gate, openness: of :func:`mmaib.explanations.bottleneck.optimised`.
        features: of the whole image.
        orders: maps ``(H, W)`` of the model's input.
    """
    found = []
    for order in orders:
        moved = []
        for i, a in zip(gate.levels, openness):
            whole, (rows, columns) = order[None, None].to(a), gate.windows[i]
            size = features[i].size(2), features[i].size(3)
            cells = F.adaptive_avg_pool2d(whole, size)
            moved.append(reordered(a, a, cells[..., rows, columns]))
        found.append(gate.probability(at_bits_of(gate, moved, openness)))
    return found


def at_bits_of(
    gate: Gate, openness: Sequence[Tensor], other: Sequence[Tensor]
) -> list[Tensor]:
    """An openness whose logits are shifted until as many nats pass as with
    another."""
    wanted = sum(x.sum() for x in gate.nats(other))
    logits = [a.clamp(1e-6, 1 - 1e-6).logit() for a in openness]
    low, high = -20.0, 20.0
    for _ in range(30):
        shift = (low + high) / 2
        shifted = [(x + shift).sigmoid() for x in logits]
        if sum(x.sum() for x in gate.nats(shifted)) > wanted:
            high = shift
        else:
            low = shift
    return shifted


def location(order: Tensor, inside: Tensor) -> dict[str, float]:
    """Where a map lies: its share in the box beside the box's share of the
    image, and whether its highest position is there.

    Args:
        order: the map ``(H, W)``.
        inside: ``(H, W)`` of booleans.
    """
    positive = order.clamp(min=0)
    total = positive.sum().clamp(min=1e-12)
    return dict(
        energy=float((positive * inside).sum() / total),
        area=float(inside.float().mean()),
        pointing=float(inside.flatten()[positive.argmax()]),
    )


def discrimination(order: Tensor, own: Tensor, others: Tensor) -> float:
    """Object Discrimination Index (ODAM, Zhao et al., ICLR 2023): the share
    of a map's energy in boxes that lies in the boxes of other objects. 0 is
    best; nan where there are no others."""
    beside = others & ~own
    if not beside.any():
        return float('nan')
    positive = order.clamp(min=0)
    stray = (positive * beside).sum()
    return float(stray / (stray + (positive * own).sum()).clamp(min=1e-12))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, of two maps."""
    found = stats.spearmanr(one.flatten().numpy(), other.flatten().numpy())
    return float(found.statistic)


def paired_interval(
    differences: Sequence[float], groups: Sequence[Any]
) -> tuple[float, float, float]:
    """Mean paired difference and its 95 % interval, by a bootstrap of whole
    images, since boxes of one image are not independent.

    Args:
        differences: a detection each.
        groups: its image.
    """
    values = np.asarray(differences)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, values, len(names))
    counts = np.bincount(index, minlength=len(names))
    if len(names) < 2:
        return float(values.mean()), float('nan'), float('nan')

    def ratio(total: np.ndarray, count: np.ndarray, axis: int = -1) -> Any:
        return total.sum(axis) / count.sum(axis)

    found = stats.bootstrap(
        (sums, counts), ratio, paired=True, vectorized=True,
        n_resamples=4999, method='percentile',
        rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = found.confidence_interval
    return float(values.mean()), float(low), float(high)
