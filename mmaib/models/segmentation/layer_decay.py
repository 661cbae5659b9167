from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmseg.engine.optimizers import LearningRateDecayOptimizerConstructor
from torch import nn

from mmaib.layers import AttentiveBottleneck
from mmaib.registry import OPTIM_WRAPPER_CONSTRUCTORS

FIELDS = {'num_layers', 'decay_rate', 'decay_type', 'custom_keys'}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AIBLayerDecayOptimizerConstructor(LearningRateDecayOptimizerConstructor):
    """mmseg's layer-wise decay, with attention at the full rate and without
    weight decay, and with MMEngine's ``custom_keys``, which mmseg's ignores.

    mmseg's gives everything outside the backbone the full learning rate, and
    decays convolution weights: the map's would be pulled towards an even
    map. Anchors and gates have one dimension, so they never decay.

    Args:
        optim_wrapper_cfg: see MMEngine.
        paramwise_cfg: ``num_layers``, ``decay_rate`` and ``decay_type``
            (``'layer_wise'`` or ``'stage_wise'``), and ``custom_keys``,
            ``{part of a parameter's name: dict(lr_mult=, decay_mult=)}``, of
            which the longest that fits a parameter counts.

    Raises:
        ValueError: if ``paramwise_cfg`` has other fields.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        _refuse('paramwise_cfg', self.paramwise_cfg, FIELDS)
        self.custom_keys = self.paramwise_cfg.get('custom_keys') or {}
        for key, fields in self.custom_keys.items():
            field = f'paramwise_cfg.custom_keys[{key!r}]'
            _refuse(field, fields, {'lr_mult', 'decay_mult'})

    def add_params(
        self, params: list[dict], module: nn.Module, **kwargs: Any
    ) -> None:
        of_base: list[dict] = []
        super().add_params(of_base, module, **kwargs)
        attention = {
            id(parameter)
            for layer in module.modules()
            if isinstance(layer, AttentiveBottleneck)
            for parameter in layer.parameters()
        }
        full = dict(
            group_name='attention',
            lr=self.base_lr,
            lr_scale=1.0,
            weight_decay=0.0,
        )
        groups: dict[tuple, dict] = {}
        for group in of_base:
            members = zip(group.pop('params'), group.pop('param_names'))
            for parameter, name in members:
                base = full if id(parameter) in attention else group
                key = self._custom_key(name)
                own = groups.setdefault(
                    (base['group_name'], key), self._scaled(base, key)
                )
                own['params'].append(parameter)
                own['param_names'].append(name)
        for group in groups.values():
            if group['group_name'].startswith(('attention', 'custom')):
                print_log(
                    f'{type(self).__name__}: lr {group["lr"]:.3g}, '
                    f'weight_decay {group["weight_decay"]:.3g}: '
                    f'{group["param_names"]}',
                    logger='current',
                )
        params.extend(groups.values())

    def _custom_key(self, name: str) -> str | None:
        """The key that counts, as in MMEngine's default constructor."""
        keys = [key for key in sorted(self.custom_keys) if key in name]
        return max(keys, key=len, default=None)

    def _scaled(self, group: dict, key: str | None) -> dict:
        """A new group of parameters, its rates times those of a key."""
        group = dict(group, params=[], param_names=[])
        if key is not None:
            factors = self.custom_keys[key]
            group['group_name'] = f'custom {key}, {group["group_name"]}'
            group['lr'] *= factors.get('lr_mult', 1.0)
            group['lr_scale'] *= factors.get('lr_mult', 1.0)
            group['weight_decay'] *= factors.get('decay_mult', 1.0)
        return group


def _refuse(field: str, given: dict, known: set[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise ValueError(
            f'{field} must be some of {sorted(known)}, got {unknown}'
        )
