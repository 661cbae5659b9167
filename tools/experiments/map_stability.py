r"""Section 4.3 of [AIB]: do the maps stay when the answer does?

The paper's score is the share of samples whose map is almost the same after a
modification, among those whose answer is. A map that never changes has 100 %,
so a constant one is the best there is. Beside it stand the cosine of the maps
less their means, which a constant map has at 0, and how far a map varies
within its image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from modifications import modified
from torch import Tensor

from mmaib.evaluation import contrast
from mmaib.evaluation.agreement import (
    box_agreement,
    found_boxes,
    mask_agreement,
)
from mmaib.evaluation.map_geometry import of_the_image, whole_maps
from mmaib.layers import CapturedMap, capture_attention

TAUS = (0.85, 0.9, 0.95)
SAME = 0.5  # the agreement from which on two answers are the same


def between(
    sample: Mapping[str, Any], other: Mapping[str, Any], score_thr: float = 0.3
) -> float:
    """How far two predictions agree, from 0 to 1.

    Of classifiers: whether the class is the same. Of segmentors: the mean
    IoU. Of detectors: :func:`box_agreement`, 0 if the sets of classes differ.

    Args:
        sample: ``to_dict()`` of a data sample with predictions.
        other: the same image's, after a change.
        score_thr: detections below do not count.
    """
    if 'pred_instances' in sample:
        boxes, labels = found_boxes(sample['pred_instances'], score_thr)
        others, other_labels = found_boxes(other['pred_instances'], score_thr)
        if {*labels.tolist()} != {*other_labels.tolist()}:
            return 0.0
        return box_agreement(boxes, labels, others, other_labels)
    if 'pred_sem_seg' in sample:
        return mask_agreement(
            sample['pred_sem_seg']['data'][0].cpu(),
            other['pred_sem_seg']['data'][0].cpu(),
        )
    return float(sample['pred_score'].argmax() == other['pred_score'].argmax())


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of two maps of one shape; 0 where one is 0 everywhere."""
    a, b = a.flatten().double(), b.flatten().double()
    norms = float(a.norm() * b.norm())
    return round(float(a @ b) / norms, 12) if norms else 0.0


def centred_cosine(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two maps, the cosine less their means; 0 where
    one is constant, as it points nowhere."""
    a, b = (x.flatten().double() for x in (a, b))
    if min(float(x.max() - x.min()) for x in (a, b)) < 1e-6:
        return 0.0
    return cosine(a - a.mean(), b - b.mean())


class Comparison(NamedTuple):
    """An image and one of its modifications."""

    agreement: float  # of the two answers, see :func:`between`
    cosine: float | None  # of the two maps, the mean over levels
    centred: float | None  # the same of the maps less their means


def scores_of(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> list[Tensor]:
    """The scores that an image's features were modulated by, a level each,
    without padding: the quantised ones where there is a quantiser."""
    return [
        of_the_image(
            (m.mean if m.quantized is None else m.quantized)[index, 0],
            metainfo,
        )
        for m in maps
    ]


def compared(
    before: Sequence[Tensor], after: Sequence[Tensor], agreement: float
) -> Comparison:
    """The maps of an image, a level each, before and after a modification."""
    if not before:
        return Comparison(agreement, None, None)
    return Comparison(
        agreement,
        mean(cosine(a, b) for a, b in zip(before, after)),
        mean(centred_cosine(a, b) for a, b in zip(before, after)),
    )


@torch.no_grad()
def compare_modified(
    model: Any,
    data: dict[str, Any],
    seed: int,
    patches: Sequence[Tensor] = (),
    score_thr: float = 0.3,
) -> tuple[dict[str, Comparison], float | None]:
    """An image against its modifications, in one batch.

    Args:
        model: the base model, in evaluation mode.
        data: of the image, as the base library's pipeline packs it, the image
            ``(3, H, W)``, uint8.
        seed: of this image's places, colours and patches.
        patches: images of another data set, ``(3, H, W)``, uint8.
        score_thr: detections below do not count.

    Returns:
        a comparison for each modification, and the standard deviation of the
        image's map over its positions, the mean over levels, None without a
        map.
    """
    image = data['inputs']
    generator = torch.Generator().manual_seed(seed)
    changed = modified(image, generator, patches)
    inputs = [image, *changed.values()]
    copies = [copy.deepcopy(data['data_samples']) for _ in inputs]
    batch = dict(inputs=inputs, data_samples=copies)
    with capture_attention(model) as captured:
        samples = model.test_step(batch)
    metainfo = samples[0].metainfo
    maps = whole_maps(model, captured, metainfo)
    answers = [sample.cpu().to_dict() for sample in samples]
    before = scores_of(maps, 0, metainfo)
    found = {
        name: compared(
            before,
            scores_of(maps, number, metainfo),
            between(answers[0], answers[number], score_thr),
        )
        for number, name in enumerate(changed, 1)
    }
    return found, mean(map(contrast, before)) if before else None


class Estimate(NamedTuple):
    """A mean of so many values, None of none, and its bootstrap interval of
    95 %."""

    value: float | None
    low: float | None
    high: float | None
    number: int


def share(hits: Any, counts: Any) -> Estimate:
    """The mean of ``hits``, ``(images,)`` or ``(images, modifications)``, over
    what counts, with a percentile bootstrap over images, seeded."""
    kept = np.asarray(counts, bool)
    if not kept.any():
        return Estimate(None, None, None, 0)
    values = np.where(kept, np.asarray(hits, float), 0)
    sums, numbers = (
        x.reshape(len(x), -1).sum(1).astype(float) for x in (values, kept)
    )
    chosen = np.random.default_rng(0).integers(
        len(sums), size=(1000, len(sums))
    )
    drawn, of = sums[chosen].sum(1), numbers[chosen].sum(1)
    low, high = np.percentile(drawn[of > 0] / of[of > 0], (2.5, 97.5))
    return Estimate(
        float(sums.sum() / numbers.sum()),
        float(low),
        float(high),
        int(kept.sum()),
    )


def summary(
    comparisons: Sequence[Sequence[Comparison]],
) -> dict[str, Estimate]:
    """What modifications do to a model's maps.

    Args:
        comparisons: those of each image, as many of all.

    Returns:
        ``'same answer'``, the share of comparisons; of these ``'score tau'``,
        the paper's, for each tau, and ``'centred'``, the mean of the centred
        cosine.
    """
    agreement, cosines, centred = np.moveaxis(
        np.array(comparisons, float), -1, 0
    )
    same = agreement >= SAME
    kept = same & ~np.isnan(cosines)
    return {
        'same answer': share(same, np.ones_like(same)),
        **{f'score {tau}': share(cosines > tau, kept) for tau in TAUS},
        'centred': share(centred, kept),
    }
