from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from mmaib.registry import MODELS, base_class

from .averaging import draws_mixin
from .mixin import AuxLossMixin
from .wrapping import mixed


@cache
def with_aux_losses(cls: type) -> type:
    """The class ``cls``, collecting the losses of the layers inside it.

    Args:
        cls: a base model's class, for instance mmdet's ``RetinaNet``.

    Raises:
        TypeError: if ``cls`` has no ``loss`` method to wrap.
    """
    if not (isinstance(cls, type) and callable(getattr(cls, 'loss', None))):
        raise TypeError(
            f'with_aux_losses needs a model class with a loss(), got {cls!r}'
        )
    if issubclass(cls, AuxLossMixin):
        return cls

    averaging = draws_mixin(cls)
    return mixed(
        f'WithAuxLosses{cls.__name__}',
        (AuxLossMixin, *([averaging] if averaging else []), cls),
        with_aux_losses,
    )


@MODELS.register_module(name='WithAuxLosses')
def build_with_aux_losses(base: str, **kwargs: Any) -> nn.Module:
    """Any base model, collecting the losses of the layers inside it.

    In a config: ``type='mmaib.WithAuxLosses', base='RetinaNet'``, and the
    base model's own fields beside them.

    Args:
        base: registered name of the base model's class, under the config's
            ``default_scope`` or with its scope (``'mmdet.RetinaNet'``).
        kwargs: its arguments.

    Raises:
        KeyError: if no model of that name is registered.
    """
    cls = base_class('WithAuxLosses', 'base', base)
    return with_aux_losses(cls)(**kwargs)
