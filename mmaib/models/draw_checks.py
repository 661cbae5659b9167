"""Draws that a model cannot give, refused by the field that asks for them.

A bottleneck declares ``stochastic``, whether two samples of its map differ; a
layer ``max_maps`` and ``max_latents``, how many it can draw; and ``critic``,
which needs a draw to look at. A model declares ``draw_parts``, what it needs
for its draws to be averaged, and ``check_probabilities``; base models without
a class in mmaib have what :mod:`mmaib.models.averaging` gives them.
"""

from __future__ import annotations

from typing import Any

from mmaib.layers import AttentiveBottleneck
from mmaib.sampling.draws import Draws

from .averaging import DenseDetectorDraws, SegmentorDraws, why_not

# what is drawn, the layer's attribute, why it has one, what has none
LIMITS = (
    (
        'attention',
        'max_maps',
        'stands inside the backbone, whose other features stay N, and draws '
        'one map',
        'an mmaib.AIBNeck',
    ),
    (
        'latent',
        'max_latents',
        'draws one latent',
        'a head with draws of its own (mmaib.AIBShared2FCBBoxHead, '
        'AIBUPerHead, AIBClsHead)',
    ),
)


def check_train_draws(model: Any, draws: Draws) -> None:
    """Refuse draws that layers of the model cannot give.

    Raises:
        ValueError: naming the field and the layer.
    """
    _check_layers('train_draws', model, draws)
    if draws.latent is not None:
        return
    # a critic compares draws of the latent with the prior's
    for name, module in model.named_modules():
        if getattr(module, 'critic', None) is not None:
            raise ValueError(
                f"train_draws.latent='mean' leaves the critic of {name} "
                'nothing to compare: take 1 or more'
            )


def check_test_draws(model: Any, value: Any, draws: Draws) -> None:
    """Refuse draws that layers cannot give, or that the model cannot average.

    Args:
        model: with mmaib's layers.
        value: the field as it was written.
        draws: its field.

    Raises:
        ValueError: naming the field and the layer or the model.
    """
    _check_layers('test_draws', model, draws)
    if not draws.mean and model.draw_parts is None:
        _check_any_model(model, value, draws)
    modules = dict(model.named_modules())
    for kind, parts in (model.draw_parts or {}).items():
        for name, wanted in parts.items():
            part = modules.get(name)
            if getattr(draws, kind) and not isinstance(part, wanted):
                raise ValueError(
                    f'test_draws.{kind}={getattr(draws, kind)} needs an '
                    f'mmaib.{wanted.__name__} as {name}, got '
                    f'{type(part).__name__}: leave {kind} out'
                )
    if draws.rois and 'roi_head' not in (model.draw_parts or {}).get(
        'attention', ()
    ):
        raise ValueError(
            f'test_draws.rois={draws.rois!r} needs the RoI head of an '
            'mmaib.AIBFasterRCNN or mmaib.AIBCascadeRCNN, got '
            f'{type(model).__name__}: leave rois out'
        )
    if not draws.mean_logits:
        model.check_probabilities()


def _check_any_model(model: Any, value: Any, draws: Draws) -> None:
    asked = f'test_draws={value!r}: {type(model).__name__} cannot'
    if not isinstance(model, (SegmentorDraws, DenseDetectorDraws)):
        raise ValueError(f'{asked} average draws: {why_not(type(model))}')
    if draws.latent:
        raise ValueError(f'{asked} average latents: leave latent out')
    if not hasattr(getattr(model, 'neck', None), 'copies'):
        raise ValueError(
            f'{asked} draw maps without an mmaib.AIBNeck as neck: leave '
            'attention out'
        )


def _check_layers(field: str, model: Any, draws: Draws) -> None:
    """More maps or latents than a layer can draw, and several maps that
    would be all alike."""
    noisy = [
        module.stochastic
        for module in model.modules()
        if isinstance(module, AttentiveBottleneck)
    ]
    alike = draws.latent is None and noisy and not any(noisy)
    if (draws.attention or 0) > 1 and alike:
        raise ValueError(
            f'{field}.attention={draws.attention}: no map here has a noise, '
            "so all draws would be alike: take attention='mean', or a map "
            'with one, such as mmaib.VariationalAttention'
        )
    for kind, limit, reason, instead in LIMITS:
        count = getattr(draws, kind) or 0
        for name, module in model.named_modules():
            most = getattr(module, limit, None)
            if most is not None and count > most:
                raise ValueError(
                    f'{field}.{kind}={count}: {name} '
                    f'({type(module).__name__}) {reason}: '
                    f"take 1 or 'mean', or {instead}"
                )
