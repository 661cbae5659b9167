"""A class of a classifier as a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .targets import Target, name_of


def image_class(
    model: Any, features: Any, label: int | None, against: int | None = None
) -> Target:
    """Why an image has a class, by default the predicted one; or why that
    and not another: the log odds of the two.

    Args:
        model: a classifier.
        features: what its head receives of the image.
        label: of the class.
        against: of the other class.

    Raises:
        ValueError: if the head has no such class, or they are the same.
    """
    with torch.no_grad():
        logits = model.head(features)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f'{type(model.head).__name__}: gives {type(logits).__name__}, not '
            'the logits of one set of classes'
        )
    classes = logits.size(1)
    chosen = int(logits.argmax(1)) if label is None else label
    for one in (chosen, against):
        if one is not None and one >= classes:
            raise ValueError(
                f'class {one}: the head has {classes}, 0 to {classes - 1}'
            )
    if chosen == against:
        raise ValueError(
            f'--against {name_of(model, chosen)}: that is the class which is '
            'explained; name another, or another --class'
        )
    multi_label = any(
        base.__name__ == 'MultiLabelClsHead'
        for base in type(model.head).__mro__
    )

    def log_scores(features: Any) -> Tensor:
        logits = model.head(features)
        if against is None and multi_label:
            return torch.nn.functional.logsigmoid(logits[:, chosen])
        if against is None:
            return logits.log_softmax(1)[:, chosen]
        difference = logits[:, chosen] - logits[:, against]
        return torch.nn.functional.logsigmoid(difference)

    with torch.no_grad():
        score = log_scores(features).exp().item()
    name = name_of(model, chosen)
    if against is not None:
        name += f', not {name_of(model, against)}'
    return Target(chosen, name, score, log_scores)
