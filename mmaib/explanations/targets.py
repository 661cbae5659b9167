"""What is explained: one statement of a model about an image, as a score
that can be differentiated by the features that the head receives.

Every target is reached by the base model's own head: a detection
(detections.py), a region of a segmentor (regions.py), a class of a classifier
(image_class.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .places import Features

# of a detection's score and the one found again, by its position or by a part
# of the features, in log units
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Target:
    """A statement.

    Attributes:
        label: its class.
        name: of the class.
        score: the model's probability of it.
        log_scores: its log probability, ``(N,)``, by what the head receives
            for N copies of the image.
        box: ``(4,)`` of a detection, ``(5,)`` of a rotated one, in pixels of
            the model's input (:mod:`mmaib.functional.boxes`).
        region: ``(H, W)``, of a segmentor, in those pixels.
        shifted: its log scores by a part of the features that begins so many
            pixels from the left and the top; None if there is no such form.
    """

    label: int
    name: str
    score: float
    log_scores: Callable[[Any], Tensor]
    box: Tensor | None = None
    region: Tensor | None = None
    shifted: Callable[[int, int, Features], Callable] | None = None


def class_names(model: Any) -> list[str]:
    """The classes of the data set that a model was trained on; empty if it
    does not say."""
    meta = getattr(model, 'dataset_meta', None)
    meta = meta or getattr(model, '_dataset_meta', None) or {}  # mmpretrain's
    names = meta.get('classes') or meta.get('CLASSES') or ()
    return [names] if isinstance(names, str) else list(names)


def name_of(model: Any, label: int) -> str:
    """The name of a class, by its number."""
    names = class_names(model)
    return names[label] if label < len(names) else f'class {label}'


def label_of(model: Any, name: str | int) -> int:
    """The number of a class, given its name or its number.

    Raises:
        ValueError: if the model has no such class.
    """
    names, name = class_names(model), str(name)
    if name in names:
        return names.index(name)
    if name.isdecimal():
        return int(name)
    raise ValueError(
        f'class {name!r}: the model has '
        + (', '.join(names[:20]) or "no names, give the class's number")
    )
