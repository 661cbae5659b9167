from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.checks import one_of, part_fields
from mmaib.functional import resize
from mmaib.losses import require_collector
from mmaib.registry import MODELS, build_part
from mmaib.sampling.draws import current


@MODELS.register_module()
class AIBNeck(BaseModule):
    r"""A base model's neck with attention before or after it.

    ::

        where='after'                        where='before'

        C2 C3 C4 C5                          C2 C3 C4 C5
         |  |  |  |                           |  |  |  |
        [ base neck ]                        [ bottleneck ]
         |  |  |  |  |                        |  |  |  |
        [ bottleneck ]                       [ base neck ]
         |  |  |  |  |                        |  |  |  |  |
        P2 P3 P4 P5 P6                       P2 P3 P4 P5 P6

        map='per_level'                      map='shared'

        x1 -> a1 -> x1 + x1 a1               x1 -.          .-> x1 + x1 a
        x2 -> a2 -> x2 + x2 a2               x2 --> cat -> a -> x2 + x2 a
        x3 -> a3 -> x3 + x3 a3               x3 -'          '-> x3 + x3 a

    One bottleneck serves every level. ``forward`` returns what the base model
    expects, N features a level, so any head works after it; ``L_a * N``,
    draw by draw, where :mod:`mmaib.sampling.draws` has L_a maps drawn.

    A checkpoint of the base model loads as it is: its keys ``neck.*`` are
    mapped onto the wrapped neck.

    Args:
        bottleneck: config of :class:`AttentiveBottleneck`, without its
            channels.
        neck: config of the base model's neck, a list of them for one after the
            other (FPN and BFP), or None.
        where: ``'after'`` or ``'before'`` the base neck.
        map: ``'per_level'``, each level has its own map, all by one module,
            or ``'shared'``, one map from all levels concatenated.
        in_channels: channels of the attended features: one number, or one a
            level, which ``map='shared'`` needs. By default what the base
            model's neck declares.
        map_level: the level on whose grid a shared map is made; the others
            are resized to it, and the map back to them. For
            ``map='per_level'`` it means nothing.
        init_cfg: see MMEngine.

    Attributes:
        out_channels: of each level, None if the base neck does not declare it.
        level_channels: of the attended features, one entry a level, or a
            single one where the base neck does not declare how many.

    Shape:
        a feature ``(N, C, H, W)`` a level -> a feature a level, as the base
        neck gives them; ``2 C`` channels with ``mode='concat'``. A
        feature that comes without a tuple around it leaves without one.

    Example:
        >>> neck = AIBNeck(dict(), map='shared', in_channels=[64, 128]).eval()
        >>> x = [torch.rand(2, 64, 32, 32), torch.rand(2, 128, 16, 16)]
        >>> [level.shape for level in neck(x)]
        [torch.Size([2, 64, 32, 32]), torch.Size([2, 128, 16, 16])]

    Raises:
        ValueError: if a field is out of range, or if levels that share a
            module differ in channels.
    """

    def __init__(
        self,
        bottleneck: dict,
        neck: dict | Sequence[dict] | None = None,
        where: str = 'after',
        map: str = 'per_level',
        in_channels: int | Sequence[int] | None = None,
        map_level: int = 0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.where = one_of('where', where, ('before', 'after'))
        self.map = one_of('map', map, ('per_level', 'shared'))
        self.neck = None if neck is None else MODELS.build(neck)
        part_fields('bottleneck', bottleneck, ('in_channels', 'map_channels'))
        levels = self._level_channels(in_channels, _growth(bottleneck))
        shared = self.map == 'shared'
        if shared and not (
            isinstance(map_level, int)
            and -len(levels) <= map_level < len(levels)
        ):
            raise ValueError(
                f'map_level must name one of {len(levels)} levels, '
                f'got {map_level!r}'
            )
        self.map_level = map_level
        if len(levels) == 1 and where == 'after':
            levels *= _number_of_levels(self.neck)
        self.level_channels = levels
        self.num_levels = len(levels)
        self.bottleneck = build_part(
            'bottleneck',
            bottleneck,
            'mmaib.AttentiveBottleneck',
            in_channels=levels,
            map_channels=sum(levels) if shared else levels[0],
        )
        uneven = len(set(levels)) > 1
        if where == 'before' and self.neck is not None:
            self.out_channels = _declared(self.neck, 'out_channels')
        else:
            self.out_channels = (
                None if uneven else self.bottleneck.out_channels
            )

    def _level_channels(
        self, given: int | Sequence[int] | None, growth: int
    ) -> list[int]:
        """Channels of the attended levels, one entry if any level has it."""
        field = 'out_channels' if self.where == 'after' else 'in_channels'
        base = type(self.neck).__name__
        declared = _declared(self.neck, field)
        if declared is not None and growth > 1 and self.where == 'before':
            declared = _divided(declared, growth, f'{base}.in_channels')
            field = f'in_channels / {growth}'
        channels, name = (
            (declared, f'{base}.{field}')
            if given is None
            else (given, 'in_channels')
        )
        if channels is None:
            raise ValueError(
                'in_channels is needed: the channels of the features '
                f'{self.where} the base neck do not follow from it'
            )
        if self.map == 'shared' and isinstance(channels, int):
            raise ValueError(
                "map='shared' needs in_channels as a list, one a level, "
                f'got {name} = {channels}'
            )
        levels = _as_list(channels)
        if declared is not None and {*levels} != {*_as_list(declared)}:
            raise ValueError(
                f'in_channels is {given}, the features {self.where} {base} '
                f'have {declared} channels'
            )
        if self.map == 'per_level' and len(set(levels)) > 1:
            raise ValueError(
                f'{name} = {levels}: one module for all levels {self.where} '
                "the neck needs equal channels, or map='shared'"
            )
        return levels

    @property
    def copies(self) -> int:
        """How many features the neck gives for one, here and now: L_a, times
        L_z if its bottleneck has a noise."""
        drawn = current()
        noisy = self.bottleneck.noise is not None
        return (drawn.attention or 1) * ((noisy and drawn.latent) or 1)

    def forward(
        self, features: Sequence[Tensor] | Tensor
    ) -> tuple[Tensor, ...] | Tensor:
        if self.training:
            require_collector('AIBNeck')
        levels, bare = self._levels(features)
        inputs = self.bottleneck.map_inputs(levels)
        maps = self._maps(inputs)
        out = tuple(
            self.bottleneck.modulate(x, attention, i)
            for i, (x, attention) in enumerate(zip(levels, maps))
        )
        self.bottleneck.modulation.report(inputs, maps)
        if self.where == 'before' and self.neck is not None:
            given = self.neck(out[0] if bare else out)
            return given if isinstance(given, Tensor) else tuple(given)
        return out[0] if bare else out

    def attention_maps(
        self, features: Sequence[Tensor] | Tensor
    ) -> list[Tensor]:
        """The maps of features as the base model gives them, one a level;
        nothing is modulated."""
        levels, _ = self._levels(features)
        return self._maps(self.bottleneck.map_inputs(levels))

    def _levels(
        self, features: Sequence[Tensor] | Tensor
    ) -> tuple[tuple[Tensor, ...], bool]:
        """What the bottleneck stands after, a feature a level, and whether
        it came without a tuple around it."""
        if self.where == 'after' and self.neck is not None:
            features = self.neck(features)
        if isinstance(features, Tensor):
            return (features,), True
        return tuple(features), False

    def _maps(self, x: Sequence[Tensor]) -> list[Tensor]:
        """A map ``(L_a * N, 1, H, W)`` for each level."""
        if self.map == 'per_level':
            return self.bottleneck.attend(x)
        if len(x) != self.num_levels:
            raise ValueError(
                f'in_channels of the AIBNeck names {self.num_levels} levels, '
                f'got features of {len(x)}'
            )
        grid = x[self.map_level].shape[2:]
        joined = torch.cat([resize(level, grid) for level in x], dim=1)
        (shared,) = self.bottleneck.attend([joined])
        # Between two anchors there is none: a quantised map stays quantised.
        quantized = self.bottleneck.quantizer is not None
        mode = 'nearest' if quantized else 'bilinear'
        return [resize(shared, level.shape[2:], mode) for level in x]

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        """Map the keys of the base neck onto the wrapped one."""
        if self.neck is not None:
            own = self.state_dict().keys()
            for key in self.neck.state_dict():
                old, new = prefix + key, f'{prefix}neck.{key}'
                if key not in own and old in state_dict:
                    state_dict.setdefault(new, state_dict[old])
                    del state_dict[old]
        super()._load_from_state_dict(state_dict, prefix, *args)


def _declared(neck: nn.Module | None, field: str) -> Any:
    """``in_channels`` or ``out_channels`` as a neck declares it, or None; of
    several, those of the first or of the last."""
    if isinstance(neck, nn.Sequential) and len(neck):
        neck = neck[0 if field == 'in_channels' else -1]
    value = getattr(neck, field, None)
    return value if isinstance(value, (int, list, tuple)) else None


def _number_of_levels(neck: nn.Module | None) -> int:
    """How many features a neck gives, as far as it declares: ``num_outs``, or
    as many as it takes (the necks of YOLOX and RTMDet)."""
    if isinstance(neck, nn.Sequential) and len(neck):
        neck = neck[-1]
    taken = _declared(neck, 'in_channels') or 1
    return getattr(neck, 'num_outs', None) or len(_as_list(taken))


def _growth(bottleneck: dict) -> int:
    """How many times the channels a bottleneck gives."""
    modulation, noise = (
        part_fields(field, bottleneck.get(field))
        for field in ('modulation', 'noise')
    )
    doubled = (
        modulation.get('mode') == 'concat',
        noise.get('mode') == 'propagated',
    )
    return 2 ** sum(doubled)


def _divided(
    channels: int | Sequence[int], growth: int, name: str
) -> int | list[int]:
    """Channels before a bottleneck, from those after it."""
    if odd := [c for c in _as_list(channels) if c % growth]:
        raise ValueError(
            f'the bottleneck gives {growth} times its channels (modulation '
            f"mode 'concat', noise mode 'propagated'): {name} must be a "
            f'multiple of {growth}, got {odd[0]}'
        )
    if isinstance(channels, int):
        return channels // growth
    return [c // growth for c in channels]


def _as_list(channels: int | Sequence[int]) -> list[int]:
    return [channels] if isinstance(channels, int) else list(channels)
