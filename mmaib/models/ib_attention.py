from __future__ import annotations

from typing import Any

from torch import Tensor

from mmaib.layers.attentive_bottleneck import AttentiveBottleneck
from mmaib.losses import require_collector
from mmaib.registry import MODELS


@MODELS.register_module()
class IBAttention(AttentiveBottleneck):
    r"""An :class:`AttentiveBottleneck` inside a backbone: a plug-in layer of
    mmcv's.

    In a config of mmdet's or mmseg's ResNet with Bottleneck blocks::

        backbone=dict(plugins=[dict(
            cfg=dict(type='mmaib.IBAttention',
                     modulation=dict(init='identity')),
            stages=(False, False, True, True), position='after_conv3')])

    Each block of those stages has a map of its own, drawn once at most. A
    BasicBlock (ResNet-18 and -34) and mmpretrain's ResNet take no plug-ins;
    there, and under ``with_cp``, an :class:`AttendedBackbone` attends what a
    stage gives. mmseg runs only the last of several plug-ins in one position.

    Args:
        in_channels: channels C; mmcv sets it.
        bottleneck: fields of :class:`AttentiveBottleneck`.

    Shape:
        ``(N, C, H, W)`` -> the same.

    Example:
        >>> layer = IBAttention(64, modulation=dict(init='identity')).eval()
        >>> x = torch.rand(2, 64, 16, 16)
        >>> torch.equal(layer(x), x)
        True

    Raises:
        ValueError: if a field is out of range, or would change the channels.
    """

    _abbr_ = 'ib_attention'
    max_maps = 1

    def __init__(self, in_channels: int, **bottleneck: Any) -> None:
        super().__init__(in_channels, **bottleneck)
        if self.out_channels != in_channels:
            raise ValueError(
                f'IBAttention gives {self.out_channels} channels for '
                f'{in_channels} where the layers after it want as many as '
                "came: modulation mode 'concat' and noise mode 'propagated' "
                'double them'
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            require_collector('IBAttention')
        return super().forward(x)
