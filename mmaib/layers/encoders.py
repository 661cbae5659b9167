from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule

from mmaib.registry import MODELS

GAUSSIAN = 'mmaib.GaussianEncoder'


def build_encoder(
    encoder: dict | None, gaussian: dict[str, Any], **common: Any
) -> BaseModule:
    """The stochastic latent that a head's field ``encoder`` names.

    Args:
        encoder: ``dict(type='mmaib.PropagatedNoiseEncoder', noise_std=1.0)``
            and the like; None is a :class:`GaussianEncoder`.
        gaussian: fields that a :class:`GaussianEncoder` alone has.
        common: fields that every encoder has.
    """
    config = {'type': GAUSSIAN, **(encoder or {})}
    if config['type'] == GAUSSIAN:
        config = {**gaussian, **config}
    return MODELS.build({**common, **config})
