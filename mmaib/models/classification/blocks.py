"""The blocks that [AIB] builds its classifiers of, Tables 1 and 4.

Its networks are cut in two, features before the attention and encoder
after it, and its maps may have a block of their own. Each class here is any
run of blocks: a backbone, the neck after an attention, or its `mean_trunk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from mmpretrain.models.backbones.resnet import Bottleneck, ResLayer
from torch import Tensor, nn

from mmaib.checks import at_least
from mmaib.registry import MODELS

Features = Tensor | Sequence[Tensor]


def last(x: Features) -> Tensor:
    """The feature of the last level, as an image or a backbone gives it."""
    return x if isinstance(x, Tensor) else x[-1]


def check_one_entry_per_block(**fields: Any) -> None:
    """Refuse fields that are no lists of one length.

    Raises:
        ValueError: naming the fields.
    """
    lengths = {
        len(value) if isinstance(value, (list, tuple)) else 0
        for value in fields.values()
    }
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f'{", ".join(fields)} need one entry a block, got {fields}'
        )


@MODELS.register_module()
class VGGBlocks(BaseModule):
    """Blocks of VGG with batch norm: 3x3 convolutions and, where asked for,
    a 2x2 max-pooling after them.

    Args:
        channels: of each block.
        depths: convolutions of each block.
        pools: whether a pooling ends each block.
        in_channels: of the first block.
        last_conv: channels of a 1x1 convolution with ReLU after the
            blocks, if there is one.
        init_cfg: see MMEngine.

    Shape:
        ``(N, in_channels, H, W)``, or the last of several levels -> a tuple
        of one feature ``(N, out_channels, H', W')``, each pooling halves H
        and W.

    Raises:
        ValueError: if the fields differ in length.
    """

    def __init__(
        self,
        channels: Sequence[int],
        depths: Sequence[int],
        pools: Sequence[bool],
        in_channels: int = 3,
        last_conv: int | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_one_entry_per_block(
            channels=channels, depths=depths, pools=pools
        )
        for depth in depths:
            at_least('depths', depth, 1)
        self.in_channels = in_channels
        norm = dict(type='BN')
        blocks = []
        for width, depth, pool in zip(channels, depths, pools):
            block: list[nn.Module] = []
            for _ in range(depth):
                block.append(
                    ConvModule(in_channels, width, 3, padding=1, norm_cfg=norm)
                )
                in_channels = width
            if pool:
                block.append(nn.MaxPool2d(2))
            blocks.append(nn.Sequential(*block))
        if last_conv is not None:
            blocks.append(ConvModule(in_channels, last_conv, 1))
        self.out_channels = last_conv or in_channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Features) -> tuple[Tensor]:
        return (self.blocks(last(x)),)


KAIMING = [
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm']),
]


class PreActivationBlock(nn.Module):
    """Residual block of Wide ResNet: norm and ReLU before each
    convolution, and before a shortcut that must change the shape."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        order = ('norm', 'act', 'conv')
        norm = dict(type='BN')
        self.same_shape = in_channels == channels and stride == 1
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride, padding=1, bias=False
        )
        self.dropout = nn.Dropout(dropout)
        self.conv2 = ConvModule(
            channels, channels, 3, padding=1, norm_cfg=norm, order=order
        )
        if not self.same_shape:
            self.shortcut = nn.Conv2d(
                in_channels, channels, 1, stride, bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        shortcut = x if self.same_shape else self.shortcut(activated)
        return shortcut + self.conv2(self.dropout(self.conv1(activated)))


@MODELS.register_module()
class WideResNetBlocks(BaseModule):
    """Blocks of a Wide ResNet for small images, WRN-28-10 by default.

    Args:
        channels: of each block.
        strides: of each block.
        depth: residual units of a block; ``(d - 4) / 6`` in WRN-d.
        in_channels: of the first block.
        stem: whether a 3x3 convolution turns an image into them.
        last_norm: whether norm and ReLU end the blocks, as they end the
            network.
        last_conv: channels of a 1x1 convolution after the blocks, if there
            is one, with a norm before it, a norm and ReLU after it.
        dropout: between the convolutions of a unit.
        init_cfg: see MMEngine; that of mmpretrain's ResNet by default.

    Shape:
        ``(N, in_channels, H, W)``, or the last of several levels, with
        ``stem`` ``(N, 3, H, W)`` -> a tuple of one feature ``(N,
        out_channels, H', W')``.

    Raises:
        ValueError: if the fields differ in length.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        depth: int = 4,
        in_channels: int = 16,
        stem: bool = False,
        last_norm: bool = False,
        last_conv: int | None = None,
        dropout: float = 0.0,
        init_cfg: dict | list | None = KAIMING,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_one_entry_per_block(channels=channels, strides=strides)
        at_least('depth', depth, 1)
        self.in_channels = 3 if stem else in_channels
        self.out_channels = last_conv or channels[-1]
        blocks: list[nn.Module] = []
        if stem:
            blocks.append(nn.Conv2d(3, in_channels, 3, padding=1, bias=False))
        for width, stride in zip(channels, strides):
            units = []
            for _ in range(depth):
                units.append(
                    PreActivationBlock(in_channels, width, stride, dropout)
                )
                in_channels, stride = width, 1
            blocks.append(nn.Sequential(*units))
        if last_norm:
            blocks.append(
                nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
            )
        if last_conv is not None:
            blocks.append(
                nn.Sequential(
                    nn.BatchNorm2d(in_channels),
                    ConvModule(
                        in_channels, last_conv, 1, norm_cfg=dict(type='BN')
                    ),
                )
            )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Features) -> tuple[Tensor]:
        return (self.blocks(last(x)),)


@MODELS.register_module()
class ResNetStage(Sequential):
    """A stage of mmpretrain's ResNet on its own, the names of its weights
    included: ``init_cfg=dict(type='Pretrained', checkpoint=...,
    prefix='backbone.layer4')`` loads those of a ResNet.

    Args:
        in_channels: of the stage before it.
        out_channels: of its own.
        num_blocks: bottlenecks.
        expansion: of a bottleneck, 2 in Wide ResNet.
        stride: of the first bottleneck.
        init_cfg: see MMEngine.

    Shape:
        ``(N, in_channels, H, W)``, or the last of several levels -> a tuple
        of one feature ``(N, out_channels, H / stride, W / stride)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        expansion: int = 4,
        stride: int = 2,
        init_cfg: dict | list | None = None,
    ) -> None:
        stage = ResLayer(
            Bottleneck,
            num_blocks,
            in_channels,
            out_channels,
            expansion=expansion,
            stride=stride,
        )
        super().__init__(*stage, init_cfg=init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Features) -> tuple[Tensor]:
        return (super().forward(last(x)),)
