from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.registry import MODELS


@MODELS.register_module()
class FeatureNoise(BaseModule):
    r"""Noise on the features in front of the modulation, as Fig. 5(b) and
    (c) of [AIB] draw it: all that follows is the noise encoder.

    ============== ======================================== ============
    ``mode``       :math:`x'`                               out channels
    ============== ======================================== ============
    ``additive``   :math:`x + \sigma \epsilon`              C
    ``propagated`` :math:`\mathrm{cat}(x, \sigma \epsilon)` 2 C
    ============== ======================================== ============

    The map is made of x without noise. The latent behind it has no density:
    a head's ``encoder=dict(type='mmaib.AdditiveNoiseEncoder', noise_std=0.0)``
    with an adversarial ``kl`` goes with it.

    Args:
        in_channels: channels C of the features.
        mode: one of the table.
        std: sigma, which [AIB] does not tell.
        train_draws: L_z in training, for each map.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> ``(L * N, out_channels, H, W)``, draw by draw.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        mode: str = 'additive',
        std: float = 1.0,
        train_draws: int = 1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.mode = one_of('noise.mode', mode, ('additive', 'propagated'))
        self.std = at_least('noise.std', std, 0.0)
        self.train_draws = at_least('noise.train_draws', train_draws, 1)
        self.out_channels = in_channels * (2 if mode == 'propagated' else 1)

    def forward(
        self,
        x: Tensor,
        num_draws: int | None = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw x'.

        Args:
            x: the features.
            num_draws: L_z; None is no noise.
            generator: source of the noise; None is the global one.
        """
        if num_draws is None:
            noise = torch.zeros_like(x)
        else:
            x = x.repeat(num_draws, 1, 1, 1)
            noise = self.std * torch.randn(
                x.shape, dtype=x.dtype, device=x.device, generator=generator
            )
        if self.mode == 'additive':
            return x + noise
        return torch.cat([x, noise], dim=1)
