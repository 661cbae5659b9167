from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmaib.checks import level_channels, one_of
from mmaib.registry import MODELS

from .image_cells import own_cells, own_position_mean
from .modulation import Modulation

MODES = ('scale', 'scale_residual', 'bias', 'concat')
# of a window that lets nearly nothing through, Eq. 7 of [RECT] divides by 0
MIN_MEAN = 0.01


@MODELS.register_module()
class FeatureModulation(Modulation):
    r"""Modulate features by an attention map, Section 3.3.1 of [AIB].

    =================== ============================== ===============
    ``mode``            :math:`x_{at}`                 out channels
    =================== ============================== ===============
    ``scale``           :math:`x \odot a`              C
    ``scale_residual``  :math:`x + x \odot a`          C
    ``bias``            :math:`x + U(a)`               C
    ``concat``          :math:`\mathrm{cat}(x, U(a))`  2 C
    =================== ============================== ===============

    with :math:`U = \mathrm{sigmoid}(\mathrm{conv}_{3\times3}(a))`.
    With ``rescale``, a is divided by its mean over positions, at least 0.01:
    :math:`x + x a / \bar a`, Eq. 7 of [RECT].

    Args:
        in_channels: channels C of the features, one number or one a level.
        mode: one of the table.
        init: ``'paper'``, the table as it stands, or ``'identity'``: what is
            added to x passes a learned gate that starts at zero, so that the
            first forward is the base's. Not for ``scale`` and ``concat``,
            which add nothing to x.
        rescale: divide the map by its mean; for ``scale_residual`` alone.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` and map ``(L * N, 1, H, W)``, draw by draw ->
        ``(L * N, out_channels, H, W)``, in x's dtype.

    Example:
        >>> modulation = FeatureModulation(in_channels=256)
        >>> x = torch.rand(2, 256, 32, 32)
        >>> modulation(x, torch.rand(8, 1, 32, 32)).shape  # 4 maps an image
        torch.Size([8, 256, 32, 32])

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        mode: str = 'scale_residual',
        init: str = 'paper',
        rescale: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        channels = level_channels(in_channels)
        self.mode = one_of('mode', mode, MODES)
        one_of('init', init, ('paper', 'identity'))
        self.rescale = one_of('rescale', rescale, (False, True))
        if rescale and mode != 'scale_residual':
            raise ValueError(
                f"rescale=True needs mode='scale_residual', got {mode=}"
            )
        if init == 'identity' and mode in ('scale', 'concat'):
            raise ValueError(
                "init='identity' needs a mode that adds to x: "
                f"'scale_residual' or 'bias', got {mode=}"
            )
        self.out_channels = channels[0] * (2 if mode == 'concat' else 1)
        if mode in ('bias', 'concat'):
            if len({*channels}) > 1:
                raise ValueError(
                    f'modulation mode {mode!r} expands the map to the '
                    f'channels of a level, and these differ: {channels}; use '
                    "'scale_residual' or 'scale'"
                )
            self.expand = nn.Sequential(
                nn.Conv2d(1, channels[0], 3, padding=1), nn.Sigmoid()
            )
        self.gate: nn.Parameter | None = None
        if init == 'identity':
            self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, attention: Tensor, level: int = 0) -> Tensor:
        attention = attention.to(x.dtype)
        draws = attention.size(0) // x.size(0)
        if draws > 1:
            # (L, N, ...) against (1, N, ...): x itself is not copied.
            attention = attention.unflatten(0, (draws, x.size(0)))
        if self.mode == 'scale':
            out = x * attention
        elif self.mode == 'scale_residual':
            if self.rescale:
                mean = own_position_mean(attention, own_cells(x))
                mean = mean.to(x.dtype)
                attention = attention / mean.clamp(min=MIN_MEAN)
            # Not x + x a: x would have two gradients, to be summed.
            out = x * (1 + self._gated(attention))
        else:
            expanded = self.expand(attention.flatten(0, -4))
            expanded = expanded.unflatten(0, attention.shape[:-3])
            if self.mode == 'bias':
                out = x + self._gated(expanded)
            else:
                out = torch.cat([x.expand_as(expanded), expanded], dim=-3)
        return out.flatten(0, 1) if draws > 1 else out

    def _gated(self, added: Tensor) -> Tensor:
        if self.gate is None:
            return added
        return self.gate.to(added.dtype) * added
