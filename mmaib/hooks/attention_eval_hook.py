from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmaib.checks import one_of
from mmaib.evaluation import AttentionMetric, causal_drops
from mmaib.layers.capture import MAP_CHANGES
from mmaib.registry import HOOKS


@HOOKS.register_module()
class AttentionEvalHook(Hook):
    """Give :class:`AttentionMetric` the maps of the model, and measure at
    the end what they carry.

    After a training, on the validation images, and after a test the host's
    own metrics are taken again with every map mirrored, flattened to its
    mean, and shuffled over positions, and logged as
    ``causal/mirror/coco/bbox_mAP``, ...

    Args:
        causal: some of ``'mirror'``, ``'flatten'``, ``'shuffle'``.

    Raises:
        ValueError: if ``causal`` names another change.
    """

    def __init__(self, causal: Sequence[str] = ()) -> None:
        self.causal = [one_of('causal', c, MAP_CHANGES) for c in causal]
        self._watching = ExitStack()

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode == 'train':
            return
        self._watching.close()
        model: Any = runner.model
        if is_model_wrapper(model):
            model = model.module
        loop = runner.val_loop if mode == 'val' else runner.test_loop
        for metric in loop.evaluator.metrics:
            if isinstance(metric, AttentionMetric):
                self._watching.enter_context(metric.watching(model))

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._watching.close()

    def after_train(self, runner: Runner) -> None:
        if self.causal and runner.val_loop is not None:
            self._measure(runner, runner.val_loop)

    def after_test(self, runner: Runner) -> None:
        if self.causal:
            self._measure(runner, runner.test_loop)

    def _measure(self, runner: Runner, loop: Any) -> None:
        found = causal_drops(
            runner.model, loop.dataloader, loop.evaluator, self.causal
        )
        values = {f'causal/{name}': value for name, value in found.items()}
        # not runner.iter, which would build a training's loop in a test
        step = runner.message_hub.get_info('iter', 0)
        runner.visualizer.add_scalars(values, step=step)
        runner.logger.info(
            '  '.join(f'{k}: {v:.4f}' for k, v in values.items())
        )
