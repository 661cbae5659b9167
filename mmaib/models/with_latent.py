from __future__ import annotations

from contextlib import ExitStack
from functools import cache, partial
from typing import Any

from mmengine.model import ModuleDict
from torch import Tensor, nn

from mmaib.contexts import in_this_thread
from mmaib.losses import require_collector
from mmaib.registry import MODELS, base_class, build_part

from .known import PREDICTORS, find
from .wrapping import Mixin, mixed


class LatentInHead(Mixin):
    """What makes the features before a base model's linear predictors
    stochastic; before its head in the bases. See
    :func:`build_with_latent`."""

    max_latents = 1

    def __init__(
        self, *args: Any, latent: dict | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.latents = ModuleDict()
        self._inputs: dict[str, str] = {}
        for path, end in predictors(self).items():
            layer = _at(self, path)
            dense = isinstance(layer, nn.Conv2d)
            channels = layer.in_channels if dense else layer.in_features
            name = end.lstrip('_') or 'all'
            self.latents[name] = build_part(
                'latent',
                latent,
                'mmaib.GaussianEncoder',
                in_channels=channels,
                latent_channels=channels,
                trunk='conv1x1' if dense else 'linear',
                with_mean=False,
                loss_name=f'loss_kl{end}',
            )
            # mmseg drops features out right before its predictor
            dropout = getattr(self, 'dropout', None)
            in_front = path == 'conv_seg' and dropout is not None
            self._inputs[name] = 'dropout' if in_front else path

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            require_collector(type(self).__name__)
        with ExitStack() as handles:
            for name, path in self._inputs.items():
                hook = in_this_thread(partial(_drawn, self.latents[name]))
                layer = _at(self, path)
                handles.enter_context(layer.register_forward_pre_hook(hook))
            return super().forward(*args, **kwargs)


def _drawn(encoder: nn.Module, _: nn.Module, args: tuple) -> Tensor:
    return encoder(args[0], lambda x: x)


def _at(module: Any, path: str) -> Any:
    """The module of that path; a number may count from the end."""
    for name in path.split('.'):
        numbered = name.lstrip('-').isdigit()
        module = module[int(name)] if numbered else getattr(module, name)
    return module


def predictors(head: Any) -> dict[str, str]:
    """The predictors of a head, as far as it has them.

    Raises:
        ValueError: if it has not, listing what is supported.
    """
    found = {}
    for path, end in (find(PREDICTORS, type(head)) or {}).items():
        try:
            layer = _at(head, path)
        except (AttributeError, IndexError, KeyError):
            continue
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            found[path] = end
    base_model: Any = _base_class(type(head))
    if 'conv_seg' in found and not _uses(base_model.forward, 'cls_seg'):
        found = {}  # one of several predictors, or of none
    if not found:
        raise ValueError(
            f'{base_model.__name__} has no latent: no last feature before a '
            'linear predictor of it is known here. Supported are heads that '
            f'inherit from {sorted(PREDICTORS)} and have its predictors '
            '(to add one: from mmaib.models import known; '
            "known.PREDICTORS['MyHead'] = {'classifier': ''})"
        )
    return found


def _uses(function: Any, name: str) -> bool:
    code = getattr(function, '__code__', None)
    return code is not None and name in code.co_names


def _base_class(cls: type) -> type:
    """The base library's class under one of mmaib's."""
    return next(
        base
        for base in cls.__mro__
        if not issubclass(base, LatentInHead) and base is not object
    )


@cache
def with_latent(cls: type) -> type:
    """The head class ``cls`` with a stochastic last feature."""
    return mixed(f'WithLatent{cls.__name__}', (LatentInHead, cls), with_latent)


@MODELS.register_module(name='WithLatent')
def build_with_latent(
    base: str, latent: dict | None = None, **kwargs: Any
) -> nn.Module:
    """A base model's head whose last feature is a Gaussian latent, right
    before its linear predictor.

    The mean is the base model's feature, so its checkpoints load and with the
    std at zero, or at the mean, it is the base model's head. One latent is
    drawn: for more (L_z > 1) see ``mmaib.AIBShared2FCBBoxHead``,
    ``mmaib.AIBUPerHead`` and ``mmaib.AIBClsHead``. Reports ``loss_kl``, of
    detectors ``loss_kl_cls`` and ``loss_kl_reg``, mean over the levels.

    In a config: ``type='mmaib.WithLatent', base='RetinaHead'`` and the
    head's own fields beside them.

    Args:
        base: registered name of the base model's head: one that inherits from
            a class in :data:`mmaib.models.known.PREDICTORS`, such as mmseg's
            FCN, ASPP, PSP and SegFormer heads, RetinaHead, FCOSHead, ATSSHead.
        latent: fields of the latent, a :class:`GaussianEncoder` unless its
            ``type`` says otherwise.
        kwargs: of the base model's head.

    Raises:
        KeyError: if no head of that name is registered.
        ValueError: if the head has no such feature.
    """
    cls = base_class('WithLatent', 'base', base)
    return with_latent(cls)(latent=latent, **kwargs)
