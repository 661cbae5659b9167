"""Opponents: others' attentions where an AIBNeck stands, after a base model's
neck.

A part is built from its config with the features' channels as `in_channels`:
mmcv's `ContextBlock` (GCNet, Cao et al., ICCVW 2019) and the parts of this
module.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import GeneralizedAttention
from mmdet.models.layers import SELayer
from mmdet.models.necks import FPN
from mmengine.model import BaseModule, constant_init
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class CBAM(BaseModule):
    """Channels, then positions (Woo et al., ECCV 2018).

    Args:
        in_channels: C.
        ratio: of the hidden channels to C.
        channels: whether the channels' half is there.
    """

    def __init__(
        self, in_channels: int, ratio: float = 1 / 16, channels: bool = True
    ) -> None:
        super().__init__()
        hidden = max(int(in_channels * ratio), 1)
        self.channels = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, in_channels, 1),
        ) if channels else None  # fmt: skip
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.channels:
            means, peaks = x.mean((2, 3), True), x.amax((2, 3), True)
            scores = self.channels(means) + self.channels(peaks)
            x = x * scores.sigmoid()
        pooled = torch.cat([x.amax(1, True), x.mean(1, True)], dim=1)
        return x * self.norm(self.conv(pooled)).sigmoid()


@MODELS.register_module()
class SE(SELayer):
    """mmdet's SELayer (Hu et al., CVPR 2018)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)


@MODELS.register_module()
class KeyContentAttention(GeneralizedAttention):
    """mmcv's GeneralizedAttention (Zhu et al., ICCV 2019) of the type '0010',
    by the keys' content alone, as mmdet's configs have it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            in_channels, num_heads=8, attention_type='0010', kv_stride=2
        )


@MODELS.register_module()
class Residual(BaseModule):
    """No attention: two 1x1 convolutions beside the features, which add
    nothing at first. With `hidden` chosen for it, as many parameters as
    another part has."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, in_channels, 1),
        )
        constant_init(self.layers[-1], 0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@MODELS.register_module()
class FPNWithPart(FPN):
    """An FPN whose levels pass one part, as they pass one AIBNeck."""

    def __init__(self, *args: object, part: dict, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.part = MODELS.build({**part, 'in_channels': self.out_channels})

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(map(self.part, super().forward(inputs)))


@MODELS.register_module()
class LevelsWithParts(BaseModule):
    """A neck of a part for each level of a backbone."""

    def __init__(self, in_channels: Sequence[int], part: dict) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            MODELS.build({**part, 'in_channels': c}) for c in in_channels
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(part(x) for part, x in zip(self.parts, inputs))
