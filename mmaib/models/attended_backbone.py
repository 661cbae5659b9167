from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import torch
from mmengine.model import ModuleList
from torch import Tensor, nn

from mmaib.checks import level_channels, part_fields
from mmaib.contexts import in_this_thread
from mmaib.registry import MODELS, base_class, type_name

from .wrapping import Mixin, mixed


class Attends(Mixin):
    """What makes a base model's backbone attend its features; before it in the
    bases. See :func:`build_attended_backbone`."""

    at: list[str]
    num_extra_tokens: int

    def attend_at(
        self,
        at: Sequence[str],
        in_channels: Sequence[int],
        bottleneck: dict,
    ) -> None:
        self.at = list(at)
        self.ib_attention = ModuleList(
            MODELS.build(
                {
                    'type': 'mmaib.IBAttention',
                    **bottleneck,
                    'in_channels': channels,
                }
            )
            for channels in in_channels
        )

    def init_weights(self) -> None:
        super().init_weights()
        # some initialise whatever layer they find, and descend into none
        if not (self.ib_attention.is_init or _is_loaded(self)):
            self.ib_attention.init_weights()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        size = (x.size(-2), x.size(-1))
        reached: set[str] = set()
        with ExitStack() as handles:
            for name, layer in zip(self.at, self.ib_attention):
                module = self.get_submodule(name)
                hook = in_this_thread(
                    partial(self._attended, name, layer, size, reached)
                )
                handles.enter_context(module.register_forward_hook(hook))
            out = super().forward(x, *args, **kwargs)
        if missed := {*self.at} - reached:
            raise ValueError(
                f'at={sorted(missed)}: the backbone does not call that '
                'module, so nothing is attended; name one inside or around it'
            )
        return out

    def _attended(
        self,
        name: str,
        layer: nn.Module,
        size: tuple[int, int],
        reached: set[str],
        module: nn.Module,
        _: Any,
        out: Any,
    ) -> Tensor:
        if not isinstance(out, Tensor) or out.dim() not in (3, 4):
            raise ValueError(
                f'at={name!r}: {type(module).__name__} gives '
                f'{_described(out)}, not a map (N, C, H, W) or tokens '
                '(N, T, C)'
            )
        reached.add(name)
        if out.dim() == 4:
            return layer(out)
        extra, grid = token_grid(
            out.size(1), size, getattr(self, 'num_extra_tokens', None)
        )
        kept, tokens = out[:, :extra], out[:, extra:]
        maps = tokens.transpose(1, 2).unflatten(2, grid)
        tokens = layer(maps).flatten(2).transpose(1, 2)
        return torch.cat([kept, tokens], dim=1) if extra else tokens


def token_grid(
    tokens: int, size: tuple[int, int], extra: int | None = None
) -> tuple[int, tuple[int, int]]:
    """Where the patches of an image lie among the tokens of a transformer.

    Args:
        tokens: how many there are, T.
        size: height and width of the image.
        extra: how many class tokens and such come first; None for as few
            as leave a grid of the image's shape.

    Returns:
        ``extra`` and the grid ``(h, w)``, with ``extra + h * w = T``.

    Example:
        >>> token_grid(197, (224, 224)), token_grid(33, (64, 128))
        ((1, (14, 14)), (1, (4, 8)))

    Raises:
        ValueError: if no such grid fits.
    """
    for count in range(5) if extra is None else (extra,):
        patches = tokens - count
        height = round(math.sqrt(max(0, patches) * size[0] / size[1]))
        if height and height * round(patches / height) == patches:
            grid = (height, patches // height)
            # the patches of such a grid are about square
            aspect = (size[0] / grid[0]) / (size[1] / grid[1])
            if 0.8 < aspect < 1.25:
                return count, grid
    raise ValueError(
        f'{tokens} tokens of an image of {size[0]}x{size[1]} are no grid of '
        f'patches after {"a few" if extra is None else extra} extra tokens'
    )


def _is_loaded(backbone: Any) -> bool:
    """Whether a checkpoint is all that initialises it."""
    config = backbone.init_cfg
    return isinstance(config, dict) and 'Pretrained' in type_name(
        config['type']
    )


def _described(out: Any) -> str:
    if isinstance(out, Tensor):
        return f'a tensor {tuple(out.shape)}'
    return f'a {type(out).__name__}'


@cache
def attended(cls: type) -> type:
    """The backbone class ``cls``, attending its features."""
    return mixed(f'Attended{cls.__name__}', (Attends, cls), attended)


@MODELS.register_module(name='AttendedBackbone')
def build_attended_backbone(
    backbone: dict,
    at: str | Sequence[str],
    in_channels: int | Sequence[int],
    bottleneck: dict | None = None,
    pretrained: str | None = None,
) -> nn.Module:
    """Any base model's backbone with attention on what some module inside it
    gives.

    For classifiers whose backbone hands over a pooled feature (ConvNeXt) or a
    class token (ViT), where a neck comes too late, and for backbones that
    take no plug-ins. Each place has an :class:`IBAttention` of its own.
    Modules, parameters and keys of the backbone keep their names, so its
    checkpoints load and layer-wise learning rates apply; mmaib's are
    ``ib_attention.*``.

    In a config: ``backbone=dict(_delete_=True,
    type='mmaib.AttendedBackbone', backbone={{_base_.model.backbone}},
    at='layers.10', in_channels=768, bottleneck=dict(...))``.

    Args:
        backbone: config of the base model's backbone.
        at: the place, or a list of them: a name such as ``'layer3'`` or
            ``'layers.10'`` for what the module of that name gives, a map
            ``(N, C, H, W)`` or tokens ``(N, T, C)``. Behind its last block a
            class token no longer sees its patches: name the one before. What
            the backbone itself gives an :class:`AIBNeck` attends.
        in_channels: channels C, one number or one a place.
        bottleneck: fields of :class:`AttentiveBottleneck`.
        pretrained: the backbone's; mmseg hands its model's over.

    Raises:
        TypeError, ValueError: if a field does not fit, or the backbone has no
            module of that name.
    """
    places: list[Any] = [*at] if isinstance(at, (list, tuple)) else [at]
    if not all(isinstance(place, str) for place in places):
        raise TypeError(
            f'at must name a module, or list such names, got {at!r}'
        )
    if len({*places}) < len(places):
        raise ValueError(f'at names a place twice, got {at!r}')
    channels = level_channels(in_channels)
    if isinstance(in_channels, int):
        channels *= len(places)
    if not places or len(channels) != len(places):
        raise ValueError(
            f'at names {len(places)} places, in_channels has '
            f'{len(channels)} entries: at={at!r}, in_channels={in_channels!r}'
        )
    fields = dict(backbone)
    if pretrained is not None:
        fields['pretrained'] = pretrained
    name = fields.pop('type')
    cls: Any = base_class('AttendedBackbone', 'backbone.type', name)
    made: Any = attended(cls)(**fields)
    if getattr(made, 'mask_ratio', None):
        raise ValueError(
            f'{cls.__name__} leaves out mask_ratio={made.mask_ratio} of its '
            'patches in training, so its features are no map to attend: take '
            'the backbone that its weights are used in, VisionTransformer for '
            'instance'
        )
    modules = {name: module for name, module in made.named_modules() if name}
    for place in places:
        if place not in modules:
            top = sorted({name.partition('.')[0] for name in modules})
            raise ValueError(
                f'at={place!r}: {cls.__name__} has no module of that name; '
                f'at its top there are {top}'
            )
        if isinstance(modules[place], (nn.ModuleList, nn.ModuleDict)):
            children = modules[place].named_children()
            inside = [f'{place}.{name}' for name, _ in children]
            raise ValueError(
                f'at={place!r}: a list of modules, which gives nothing '
                f'itself; take one of {inside}'
            )
    owned = ('in_channels', 'map_channels')
    made.attend_at(
        places, channels, part_fields('bottleneck', bottleneck, owned)
    )
    return made
