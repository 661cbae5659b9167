from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.registry import MODELS
from mmaib.sampling.draws import latent_noise


@MODELS.register_module()
class FeatureNoise(BaseModule):
    r"""Noise on the features before the modulation, as Fig. 5(b) and
    (c) of [AIB] draw it: all that follows is the noise encoder.

    ============== ======================================== ============
    ``mode``       :math:`x'`                               out channels
    ============== ======================================== ============
    ``additive``   :math:`x + \sigma \epsilon`              C
    ``propagated`` :math:`\mathrm{cat}(x, \sigma \epsilon)` 2 C
    ============== ======================================== ============

    The map is made of x without noise. The latent after it has no density:
    a head's ``latent=dict(type='mmaib.AdditiveNoiseEncoder', noise_std=0.0)``
    goes with it.

    Args:
        in_channels: channels C of the features.
        mode: one of the table.
        std: sigma, which [AIB] does not give.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> ``(L_z * N, out_channels, H, W)``, draw by
        draw; without noise where :mod:`mmaib.sampling.draws` has none drawn.

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> noise = FeatureNoise(in_channels=256, mode='propagated')
        >>> with Draws(latent=4).open():
        ...     noise(torch.rand(2, 256, 32, 32)).shape
        torch.Size([8, 512, 32, 32])

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        mode: str = 'additive',
        std: float = 1.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.mode = one_of('noise.mode', mode, ('additive', 'propagated'))
        self.std = at_least('noise.std', std, 0.0)
        self.out_channels = in_channels * (2 if mode == 'propagated' else 1)

    def forward(self, x: Tensor) -> Tensor:
        noise = latent_noise(x)
        if noise is None:
            noise = torch.zeros_like(x)
        x = x.repeat(len(noise) // len(x), 1, 1, 1)
        if self.mode == 'additive':
            return x + self.std * noise
        return torch.cat([x, self.std * noise], dim=1)
