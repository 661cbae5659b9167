"""EfficientNet cut before its head convolution, where [RECT] has its
attention (Appendix G)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models import EfficientNet
from torch import Tensor, nn

from mmaib.checks import at_least
from mmaib.registry import MODELS


@MODELS.register_module()
class EfficientNetFeatures(EfficientNet):
    """MMPretrain's EfficientNet up to the last MBConv block, without the
    1x1 convolution after it. Its checkpoints load as they are.

    Args:
        kwargs: of mmpretrain's ``EfficientNet``, without ``out_indices``.

    Shape:
        images ``(N, 3, H, W)`` -> a tuple of one feature ``(N, 320, H / 32,
        W / 32)`` with ``arch='b0'``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        del self.layers[-1]
        self.out_indices = (len(self.layers) - 1,)
        self.out_channels = self.in_channels


@MODELS.register_module()
class EfficientNetHead(BaseModule):
    """The 1x1 convolution after EfficientNet's blocks, and the average over
    positions: a neck.

    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=
    'backbone.layers.6.')`` gives it MMPretrain's weights.

    Args:
        in_channels: of the last block.
        out_channels: of the convolution.
        init_cfg: see MMEngine.

    Shape:
        a tuple whose last is ``(N, in_channels, H, W)`` -> a tuple of ``(N,
        out_channels)``.
    """

    def __init__(
        self,
        in_channels: int = 320,
        out_channels: int = 1280,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = at_least('in_channels', in_channels, 1)
        self.out_channels = at_least('out_channels', out_channels, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor]:
        x = F.silu(self.bn(self.conv(features[-1])))
        return (x.mean((2, 3)),)
