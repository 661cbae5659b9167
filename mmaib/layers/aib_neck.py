from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmaib.aux_losses import require_collector
from mmaib.checks import one_of
from mmaib.registry import MODELS


@MODELS.register_module()
class AIBNeck(BaseModule):
    r"""A host's neck with attentive bottlenecks before or behind it.

    ::

        where='after'                        where='before'

        C2 C3 C4 C5                          C2 C3 C4 C5
         |  |  |  |                           |  |  |  |
        [ host neck ]                        [ bottleneck ]  each level
         |  |  |  |  |                        |  |  |  |
        [ bottleneck ]  each level,          [ host neck ]
         |  |  |  |  |  one shared module     |  |  |  |  |
        P2 P3 P4 P5 P6                       P2 P3 P4 P5 P6

    One bottleneck serves every level. ``forward`` returns what the host
    expects, N features a level, from one drawn map in training and from the
    mean map in evaluation, so any head works behind it. Heads that average
    over draws take :meth:`draws`.

    A checkpoint of the host loads as it is: its keys ``neck.*`` are mapped
    onto the wrapped neck.

    Args:
        bottleneck: config of :class:`AttentiveBottleneck`. Its
            ``in_channels`` default to the wrapped neck's ``out_channels``
            if ``where='after'``.
        neck: config of the host's neck, or None.
        where: ``'after'`` or ``'before'`` the host's neck.
        init_cfg: see MMEngine.

    Attributes:
        out_channels: of each level, None if the host's neck does not tell.

    Shape:
        a feature ``(N, C, H, W)`` a level -> a feature a level, as the host
        neck gives them; ``2 C`` channels behind ``mode='concat'``.

    Raises:
        ValueError: if a field is out of range, or if levels that share a
            bottleneck differ in channels.
    """

    def __init__(
        self,
        bottleneck: dict,
        neck: dict | None = None,
        where: str = 'after',
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.where = one_of('where', where, ('before', 'after'))
        self.neck = None if neck is None else MODELS.build(neck)
        told = self._level_channels()
        channels = bottleneck.get('in_channels', told)
        if channels is None:
            raise ValueError(
                'bottleneck.in_channels is needed: the channels of the '
                f'features {where} the host neck cannot be told from it'
            )
        if told not in (None, channels):
            raise ValueError(
                f'bottleneck.in_channels is {channels}, the features {where} '
                f'{type(self.neck).__name__} have {told} channels'
            )
        self.bottleneck = MODELS.build(
            {
                'type': 'mmaib.AttentiveBottleneck',
                **bottleneck,
                'in_channels': channels,
            }
        )
        inner = None if where == 'after' else self.neck
        self.out_channels = getattr(
            inner or self.bottleneck, 'out_channels', None
        )

    def _level_channels(self) -> int | None:
        """Channels of the levels that are attended, if the neck tells."""
        field = 'out_channels' if self.where == 'after' else 'in_channels'
        channels = getattr(self.neck, field, None)
        if isinstance(channels, Sequence):
            if len(set(channels)) != 1:
                raise ValueError(
                    f'{type(self.neck).__name__}.{field} = '
                    f'{list(channels)}: one bottleneck shared by all levels '
                    f'{self.where} the neck needs equal channels'
                )
            return channels[0]
        return channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.training:
            require_collector('AIBNeck')
        x = self.prepare(features)
        return self.modulate(x, self.attend(x))

    def draws(
        self,
        features: Sequence[Tensor],
        num_draws: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Features of ``num_draws`` drawn maps, ``(L * N, ...)`` a level,
        draw by draw.

        Args:
            features: the backbone's.
            num_draws: L_a.
            generator: source of the noise; None is the global one.
        """
        x = self.prepare(features)
        return self.modulate(x, self.attend(x, num_draws, generator))

    # The three steps of the way, for callers that need what lies between.

    def prepare(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The features that attention looks at."""
        if self.where == 'after' and self.neck is not None:
            features = self.neck(features)
        return tuple(features)

    def attend(
        self,
        x: Sequence[Tensor],
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """A map ``(L * N, 1, H, W)`` for each level of prepared features."""
        return [
            self.bottleneck.attend(level, num_draws, generator) for level in x
        ]

    def modulate(
        self, x: Sequence[Tensor], maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """What the host's heads receive, from prepared features and maps."""
        out = tuple(
            self.bottleneck.modulation(level, attention)
            for level, attention in zip(x, maps)
        )
        if self.where == 'before' and self.neck is not None:
            out = tuple(self.neck(out))
        return out

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        """Map the keys of the host's own neck onto the wrapped one."""
        if self.neck is not None:
            own = self.state_dict().keys()
            for key in self.neck.state_dict():
                old, new = prefix + key, f'{prefix}neck.{key}'
                if key not in own and old in state_dict:
                    state_dict.setdefault(new, state_dict[old])
                    del state_dict[old]
        super()._load_from_state_dict(state_dict, prefix, *args)
