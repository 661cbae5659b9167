"""Freeze parameters and statistics of a base model, to the bit."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.losses import Reporter

FROZEN = (None, 'base', 'features')


def reporters(model: nn.Module) -> list[Any]:
    """The layers of a model that report losses."""
    return [m for m in model.modules() if isinstance(m, Reporter)]


def in_frozen_stages(model: nn.Module) -> list[Any]:
    """mmaib's layers in a backbone that freezes stages of its own. It means
    the weights that were loaded, and would leave a plug-in at random. The
    backbone of a teacher, in evaluation, is passed over."""
    found = []
    for module in model.modules():
        stages = getattr(module, 'frozen_stages', None)
        if isinstance(stages, int) and stages >= 0 and module.training:
            found += reporters(module)
    return found


def trainable_layers(model: nn.Module, frozen: str) -> list[Any]:
    """The layers of a frozen model that learn: those that report losses and,
    with ``'features'``, what a head has from its latent on."""
    found = reporters(model)
    if frozen == 'features':
        found += [
            head.get_submodule(name)
            for head in model.modules()
            for name in getattr(head, 'after_features', ())
        ]
    return found


def trainable_prefixes(model: nn.Module, frozen: str) -> tuple[str, ...]:
    """What the keys of the :func:`trainable_layers` begin with."""
    layers = trainable_layers(model, frozen)
    return tuple(
        f'{name}.'
        for name, module in model.named_modules()
        if any(module is layer for layer in layers)
    )


def freeze_parameters(model: nn.Module, frozen: str) -> None:
    """Leave gradients to the :func:`trainable_layers` alone.

    Raises:
        ValueError: if nothing would be left to learn.
    """
    learning = trainable_layers(model, frozen)
    heads = any(hasattr(m, 'after_features') for m in model.modules())
    if frozen == 'features' and not heads:
        raise ValueError(
            "frozen='features' trains a latent and what predicts from it, "
            'and the model has no head with a latent: '
            'mmaib.AIBShared2FCBBoxHead, mmaib.AIBUPerHead or '
            'mmaib.AIBClsHead'
        )
    if not learning:
        raise ValueError(
            f'frozen={frozen!r} leaves nothing to learn: the model has no '
            'layer that reports losses, such as the bottleneck of an '
            'mmaib.AIBNeck'
        )
    model.requires_grad_(False)
    for layer in learning:
        layer.requires_grad_(True)


def train_trainable(model: nn.Module, frozen: str) -> None:
    """Put the frozen parts of a model in training into evaluation mode."""
    for child in model.children():
        child.eval()
    for layer in trainable_layers(model, frozen):
        layer.train()
        if isinstance(layer, Reporter):
            continue
        for module in layer.modules():
            if isinstance(module, _BatchNorm):
                module.eval()  # statistics are the base model's
