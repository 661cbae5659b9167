from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmaib.losses import Reporter
from mmaib.models import AuxLossMixin
from mmaib.models.wrapping import unwrapped

NO_RATE = (
    'has a learning rate of 0, see optim_wrapper (lr, paramwise_cfg: lr_mult '
    'of custom_keys)'
)
NO_GRADIENT = (
    'got no gradient in the first step: the base model runs it under '
    'torch.no_grad(), detaches what it gives, or does not use it'
)


class LearningHook(Hook):
    """Warns of mmaib's layers that will never learn, while their losses are
    logged: before the first step of those that are frozen or have a learning
    rate of 0, after it of those that no gradient reached.

    What a model inside the model keeps frozen as a whole, such as a teacher,
    is meant so.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        self._handles: list[Any] = []
        self._waiting: dict[str, dict[str, nn.Parameter]] = {}
        rates = _learning_rates(runner.optim_wrapper)
        for name, layer in _layers(model):
            parameters = dict(layer.named_parameters())
            frozen = [k for k, p in parameters.items() if not p.requires_grad]
            waiting = {k: p for k, p in parameters.items() if k not in frozen}
            idle = [k for k, p in waiting.items() if not rates.get(id(p))]
            if frozen:
                why = ['is frozen (requires_grad=False)']
                if fields := [*_freezing_fields(model, name)]:
                    why.append('see ' + ', '.join(fields))
                _warn(name, layer, frozen, ', '.join(why))
            if idle:
                _warn(name, layer, idle, NO_RATE)
            self._waiting[name] = waiting
            for key, parameter in waiting.items():
                reached = partial(self._reached, name, key)
                self._handles.append(parameter.register_hook(reached))

    def _reached(self, name: str, key: str, _: Any) -> None:
        self._waiting[name].pop(key, None)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        model = unwrapped(runner.model)
        for name, waiting in self._waiting.items():
            if waiting:
                layer = model.get_submodule(name)
                _warn(name, layer, [*waiting], NO_GRADIENT)
        self._waiting.clear()


def _layers(
    model: nn.Module, name: str = ''
) -> Iterator[tuple[str, nn.Module]]:
    """The outermost layers of mmaib's, by name."""
    for child_name, child in model.named_children():
        path = f'{name}.{child_name}'.lstrip('.')
        if isinstance(child, Reporter):
            yield path, child
        elif not isinstance(child, AuxLossMixin) or any(
            parameter.requires_grad for parameter in child.parameters()
        ):
            yield from _layers(child, path)


def _learning_rates(optim_wrapper: Any) -> dict[int, float]:
    """The learning rate of each parameter, by its id, warm-up left out."""
    several = hasattr(optim_wrapper, 'values')
    wrappers = optim_wrapper.values() if several else [optim_wrapper]
    return {
        id(parameter): group.get('initial_lr', group['lr'])
        for wrapper in wrappers
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


def _freezing_fields(model: nn.Module, name: str) -> Iterator[str]:
    """What the modules around a layer are set to freeze."""
    path, module = 'model', model
    for part in name.split('.'):
        for field, value in vars(module).items():
            named = 'freez' in field or 'frozen' in field
            if named and value not in (None, False, -1, '', [], ()):
                yield f'{path}.{field}={value!r}'
        path, module = f'{path}.{part}', module.get_submodule(part)


def _warn(name: str, layer: nn.Module, keys: list[str], why: str) -> None:
    whole = len(keys) == len([*layer.parameters()])
    which = 'all of it' if whole else ', '.join(keys)
    print_log(
        f'{name} ({type(layer).__name__}) will not learn: {which} {why}',
        logger='current',
        level=logging.WARNING,
    )
