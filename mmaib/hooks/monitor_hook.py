from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from mmaib.models import AuxLossMixin
from mmaib.models.wrapping import unwrapped


class MonitorHook(Hook):
    """Has models compute monitors in the steps that are logged alone, as
    :class:`mmengine.hooks.LoggerHook` decides which these are. Where a logger
    decides otherwise, or a log processor takes means over steps, they are
    computed in every step."""

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        self._models: list[Any] = [
            m for m in model.modules() if isinstance(m, AuxLossMixin)
        ]
        hooks = [h for h in runner.hooks if isinstance(h, LoggerHook)]
        known = all(
            type(h).after_train_iter is LoggerHook.after_train_iter
            for h in hooks
        )
        means = runner.log_processor.custom_cfg
        self._loggers = hooks if known and not means else []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        logged = not self._loggers or any(
            _logs(hook, runner, batch_idx) for hook in self._loggers
        )
        for model in self._models:
            model.monitors = logged

    def after_train(self, runner: Runner) -> None:
        for model in self._models:
            model.monitors = True


def _logs(hook: LoggerHook, runner: Runner, batch_idx: int) -> bool:
    """As in its ``after_train_iter``."""
    if hook.every_n_inner_iters(batch_idx, hook.interval):
        return True
    loader = runner.train_dataloader
    return hook.end_of_epoch(loader, batch_idx) and (
        not hook.ignore_last or len(loader) <= hook.interval
    )
