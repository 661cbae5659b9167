from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import nn

from mmaib.checks import at_least
from mmaib.layers import Modulation
from mmaib.losses import Reporter
from mmaib.models.wrapping import unwrapped
from mmaib.registry import HOOKS


@HOOKS.register_module()
class BetaWarmupHook(Hook):
    """Raise the weight of the KL from 0 to what the config says.

    Every ``beta`` of the model (latents, maps and information gates) is
    multiplied by a factor that grows linearly over the first steps. It is
    also given to every modulation with ``fade(factor)``: a gate starts as the
    base model. The factor depends on the step alone, so a resumed training
    goes on where it was; an ``EMAHook`` with ``update_buffers`` has it too,
    not an average. The log shows it as ``beta_factor``.

    Args:
        end: the step, or epoch, from which on the factor is 1.
        begin: until then it is 0.
        by_epoch: whether both count epochs, not iterations.

    Raises:
        ValueError: if a field is out of range; before the training, if no
            layer of the model has a ``beta``.
    """

    def __init__(
        self, end: int, begin: int = 0, by_epoch: bool = False
    ) -> None:
        self.begin = at_least('begin', begin, 0)
        self.end = at_least('end', end, self.begin + 1)
        self.by_epoch = by_epoch
        self._betas: list[tuple[Any, float]] = []
        self._fading: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        self._betas = [
            (layer, layer.beta)
            for layer in model.modules()
            if isinstance(layer, Reporter) and layer.beta > 0
        ]
        self._fading = fading(model)
        # a gate without a price fades in all the same
        if not (self._betas or self._fading):
            raise ValueError(
                f'BetaWarmupHook: {type(model).__name__} has no layer with '
                'beta > 0, such as decode_head.latent.beta'
            )
        # an EMAHook would average what fades, a buffer
        averages = [vars(hook).get('ema_model') for hook in runner.hooks]
        for average in filter(None, averages):
            self._fading += fading(average)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        step = runner.epoch if self.by_epoch else runner.iter
        factor = self.factor(step)
        for layer, beta in self._betas:
            layer.beta = factor * beta
        for modulation in self._fading:
            modulation.fade(factor)
        hub = MessageHub.get_current_instance()
        hub.update_scalar('train/beta_factor', factor)

    def after_train(self, runner: Runner) -> None:
        for layer, beta in self._betas:
            layer.beta = beta

    def factor(self, step: int) -> float:
        """What every beta is multiplied by in a step."""
        share = (step - self.begin) / (self.end - self.begin)
        return min(max(share, 0.0), 1.0)


def fading(model: nn.Module) -> list[Any]:
    """The modulations of a model that are let in from 0 to 1."""
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, Modulation) and hasattr(layer, 'fade')
    ]
