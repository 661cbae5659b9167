from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmseg.engine.optimizers import LearningRateDecayOptimizerConstructor
from torch import nn

from mmaib.layers import AttentiveBottleneck
from mmaib.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AIBLayerDecayOptimizerConstructor(LearningRateDecayOptimizerConstructor):
    """mmseg's layer-wise decay, with attention at the full rate and without
    weight decay.

    mmseg's gives everything outside the backbone the full learning rate, and
    decays convolution weights: the map's would be pulled towards an even
    map. Anchors and gates have one dimension, so they never decay.

    Args:
        optim_wrapper_cfg: see MMEngine.
        paramwise_cfg: ``num_layers``, ``decay_rate`` and ``decay_type``
            (``'layer_wise'`` or ``'stage_wise'``).
    """

    def add_params(
        self, params: list[dict], module: nn.Module, **kwargs: Any
    ) -> None:
        super().add_params(params, module, **kwargs)
        attention = {
            id(parameter)
            for layer in module.modules()
            if isinstance(layer, AttentiveBottleneck)
            for parameter in layer.parameters()
        }
        moved: dict[str, list] = {'params': [], 'param_names': []}
        for group in params:
            members = list(zip(group['params'], group['param_names']))
            group['params'] = [p for p, _ in members if id(p) not in attention]
            group['param_names'] = [
                name for p, name in members if id(p) not in attention
            ]
            for parameter, name in members:
                if id(parameter) in attention:
                    moved['params'].append(parameter)
                    moved['param_names'].append(name)
        if moved['params']:
            print_log(
                'AIBLayerDecayOptimizerConstructor: at the full rate and '
                f'without decay instead: {moved["param_names"]}',
                logger='current',
            )
            params.append(
                dict(
                    moved,
                    weight_decay=0.0,
                    lr_scale=1.0,
                    lr=self.base_lr,
                    group_name='attention',
                )
            )
