from __future__ import annotations

from typing import Any

from torch import nn

from mmaib.aux_losses import with_aux_losses
from mmaib.registry import MODELS, host_class


@MODELS.register_module(name='WithAuxLosses')
def build_with_aux_losses(base: str, **kwargs: Any) -> nn.Module:
    """Any host model, collecting the losses of the layers inside it.

    In a config: ``type='mmaib.WithAuxLosses', base='RetinaNet'``, and the
    host model's own fields beside them.

    Args:
        base: registered name of the host's model class, under the config's
            ``default_scope`` or with its scope (``'mmdet.RetinaNet'``).
        kwargs: its arguments.

    Raises:
        KeyError: if no model of that name is registered.
    """
    cls = host_class('WithAuxLosses', 'base', base)
    return with_aux_losses(cls)(**kwargs)
