"""Regions of a segmentor as targets."""

from __future__ import annotations

from typing import Any

import torch
from scipy import ndimage
from torch import Tensor, nn

from mmaib.layers.image_cells import image_box

from .places import Features
from .targets import Target, name_of


def regions(
    model: Any,
    features: Features,
    sample: Any,
    label: int | None = None,
    point: tuple[float, float] | None = None,
    at_most: int = 20,
) -> list[Target]:
    """Why a region has its class: a target for each class that a segmentor
    predicts, for one class, or for the connected region around a point.

    Args:
        model: a segmentor.
        features: what its head receives of the image.
        sample: the image's data sample, preprocessed.
        label: of the region.
        point: x and y, in pixels of the model's input.
        at_most: so many, the largest.

    Raises:
        ValueError: if the class is predicted nowhere, or the point is outside
            the image.
    """
    heads = model.decode_head
    cascade = isinstance(heads, nn.ModuleList)
    each: list[Any] = [*heads] if cascade else [heads]
    *earlier, head = each
    one_logit = getattr(head, 'out_channels', None) == 1

    def logits_of(features: Features) -> Tensor:
        given: tuple[Any, ...] = (features,)
        for one in earlier:  # each looks at the one before
            given = (features, one(*given))
        metas = [sample.metainfo] * len(features[0])
        found = head.predict(*given, metas, model.test_cfg)
        if one_logit:  # a sigmoid, of the second of two classes
            found = torch.cat([torch.zeros_like(found), found], 1)
        return found

    with torch.no_grad():
        logits = logits_of(features)[0]
    predicted = logits.argmax(0)
    if one_logit:
        predicted = (logits.softmax(0)[1] > head.threshold).long()
    top, bottom, left, right = image_box(sample.metainfo)
    own = torch.zeros_like(predicted, dtype=torch.bool)
    own[top:bottom, left:right] = True
    predicted = predicted.masked_fill(~own, -1)  # padding is of no region
    if point is not None:
        if not (left <= point[0] < right and top <= point[1] < bottom):
            raise ValueError(
                f'--point {point[0]:g} {point[1]:g}: outside the image of '
                f'{right - left} x {bottom - top} pixels, as the model '
                'receives it'
            )
        x, y = (int(v) for v in point)
        label = int(predicted[y, x])
        parts, _ = ndimage.label((predicted == label).cpu().numpy())
        chosen = [(label, torch.from_numpy(parts == parts[y, x]))]
    else:
        there, counts = predicted[own].unique(return_counts=True)
        order = counts.argsort(descending=True)[:at_most]
        labels = [int(i) for i in there[order]] if label is None else [label]
        chosen = [(one, predicted == one) for one in labels]
    found = []
    for one, region in chosen:
        if not region.any():
            raise ValueError(
                f'class {name_of(model, one)!r}: the segmentor predicts it '
                'nowhere on the image'
            )
        inside = region.to(predicted.device)

        def log_scores(
            features: Features, one: int = one, inside: Tensor = inside
        ) -> Tensor:
            log = logits_of(features).log_softmax(1)
            return log[:, one][:, inside].mean(1)

        with torch.no_grad():
            score = log_scores(features).exp().item()
        found.append(
            Target(one, name_of(model, one), score, log_scores, region=inside)
        )
    return found
