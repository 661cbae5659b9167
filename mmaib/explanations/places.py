"""Where in a base model features are gated, and what comes after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Features = tuple[Tensor, ...]


class Place:
    """A place in a base model: its features there, and the rest of its way
    to the head.

    Args:
        model: of a base library, in evaluation mode.
        name: ``'neck'``, the features that the head receives;
            ``'backbone'``, those before the neck; or a module's name, such
            as ``'backbone.layer3'``, with which the backbone is run again
            for each change.

    Raises:
        ValueError: if the model has no such module, or gives no maps
            ``(N, C, H, W)`` there.
    """

    def __init__(self, model: Any, name: str = 'neck') -> None:
        self.model, self.name = model, name
        known = ('neck', 'backbone', *dict(model.named_modules()))
        if name not in known:
            near = [n for n in known if n.count('.') < 2 and n]
            raise ValueError(
                f'at={name!r}: {type(model).__name__} has no such module; '
                f'there are {", ".join(near[:12])}'
            )

    def features(self, images: Tensor) -> Features:
        """Features of preprocessed images ``(N, 3, H, W)``, one a level."""
        if self.name == 'neck':
            found = self.model.extract_feat(images)
        elif self.name == 'backbone':
            found = self.model.backbone(images)
        else:
            seen: list[Any] = []
            module = self.model.get_submodule(self.name)
            with module.register_forward_hook(lambda *x: seen.append(x[2])):
                self.model.extract_feat(images)
            found = seen[-1] if seen else None
        levels = (found,) if isinstance(found, Tensor) else found
        if not isinstance(levels, Sequence) or not all(
            isinstance(x, Tensor) and x.dim() == 4 for x in levels
        ):
            raise ValueError(
                f'at={self.name!r}: {type(self.model).__name__} gives no map '
                '(N, C, H, W) there; choose another module'
            )
        return tuple(levels)

    def to_head(self, features: Features, images: Tensor) -> Any:
        """What the head receives for features of this place, of as many
        copies of an image as there are features."""
        if self.name == 'neck':
            return features
        if self.name == 'backbone':
            with_neck = getattr(self.model, 'with_neck', False)
            return self.model.neck(features) if with_neck else features
        module = self.model.get_submodule(self.name)

        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            return features[0] if isinstance(output, Tensor) else features

        with module.register_forward_hook(replace):
            return self.model.extract_feat(
                images.expand(len(features[0]), -1, -1, -1)
            )


@torch.no_grad()
def statistics(
    place: Place, batches: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Mean and std of each channel ``(C, 1, 1)`` of each level over images,
    the noise that takes the place of what a gate shuts."""
    sums: list[Tensor] = []
    counts: list[int] = []
    for images in batches:
        for level, x in enumerate(place.features(images)):
            moments = torch.stack(
                [x.double().sum((0, 2, 3)), x.double().square().sum((0, 2, 3))]
            )
            if level == len(sums):
                sums.append(torch.zeros_like(moments))
                counts.append(0)
            sums[level] += moments
            counts[level] += x[:, 0].numel()
    found = []
    for total, count in zip(sums, counts):
        mean, square = total / count
        std = (square - mean.square()).clamp(min=1e-6).sqrt()
        found.append((mean.float()[:, None, None], std.float()[:, None, None]))
    return found
