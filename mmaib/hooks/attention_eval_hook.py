from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmengine.runner.amp import autocast

from mmaib.checks import one_of
from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.evaluation.discarded_writes import without_files
from mmaib.layers import AttentiveBottleneck
from mmaib.layers.map_changes import CHANGES, OPEN
from mmaib.models.wrapping import unwrapped
from mmaib.registry import HOOKS


@HOOKS.register_module()
class AttentionEvalHook(Hook):
    """Measure where the maps of a model look, and what depends on them.

    Every validation and test gains an :class:`AttentionMetric`, beside the
    base model's own metrics. After a training, on the validation images, and
    after a test the base model's metrics are taken once more for each of
    ``ablations``, with every map mirrored, flattened to its mean or shuffled
    over positions, and logged as ``ablation/mirror/coco/bbox_mAP``, ...; each
    costs an evaluation. With the same scores in the order of the features'
    norm or of the distance to the image's centre, what a map's own order is
    worth beside a simpler one. With every map open, at 1, an information gate
    gives the base metrics.

    A model without maps is evaluated as ever, so that a baseline may have
    the hook; so is one under test-time augmentation, whose maps do not lie on
    each other.

    Args:
        ablations: some of ``'mirror'``, ``'flatten'``, ``'shuffle'``,
            ``'norm'``, ``'centre'``, ``'complement'``, ``'open'``, see
            :func:`mmaib.layers.changed_maps`.
        metric: fields of the :class:`AttentionMetric`. One that stands in
            the evaluator already is taken as it is.
        confined: discard what the metrics of a validation write outside the
            work dir, as an ``outfile_prefix`` that names the results of the
            base config's model. A test writes as ever.

    Raises:
        TypeError, ValueError: if ``ablations`` names another change, or a
            field of the metric does not fit.
    """

    priority = 'LOW'  # after the logger, before the checkpoints

    def __init__(
        self,
        ablations: Sequence[str] = (),
        metric: dict | None = None,
        confined: bool = False,
    ) -> None:
        self.ablations = [
            one_of('ablations', c, (*CHANGES, OPEN)) for c in ablations or ()
        ]
        self.metric = metric or {}
        self.confined = one_of('confined', confined, (False, True))
        AttentionMetric(**self.metric)  # refuse it before a training
        self._watching = ExitStack()

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode == 'train' or not _has_maps(unwrapped(runner.model)):
            return
        loop = runner.val_loop if mode == 'val' else runner.test_loop
        metrics = loop.evaluator.metrics
        if not any(isinstance(m, AttentionMetric) for m in metrics):
            metrics.append(AttentionMetric(**self.metric))
        self._watching.close()
        self._watching.enter_context(_evaluating_all(loop.evaluator))
        if self.confined and mode == 'val':
            self._watching.enter_context(
                without_files(loop.evaluator, runner.work_dir)
            )
        place = unwrapped(runner.model), loop.dataloader.dataset
        for metric in metrics:
            if isinstance(metric, AttentionMetric):
                self._watching.enter_context(metric.watching(*place))

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._watching.close()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        super().after_val_epoch(runner, metrics)
        own = tuple(
            f'{metric.prefix}/'
            for metric in runner.val_loop.evaluator.metrics
            if isinstance(metric, AttentionMetric)
        )
        # A detector that finds nothing has no metric, and the best checkpoint
        # would be chosen by mmaib's; the log has it by now.
        if metrics and all(name.startswith(own) for name in metrics):
            metrics.clear()

    def after_train(self, runner: Runner) -> None:
        if runner.val_loop is not None:
            self._measure(runner, runner.val_loop)

    def after_test(self, runner: Runner) -> None:
        self._measure(runner, runner.test_loop)

    def _measure(self, runner: Runner, loop: Any) -> None:
        if not (self.ablations and _has_maps(unwrapped(runner.model))):
            return
        values: dict[str, float] = {}
        begun, count, eta = time.monotonic(), len(self.ablations), ''
        for done, change in enumerate(self.ablations, 1):
            runner.logger.info(
                f'evaluation {done} of {count} with changed maps, '
                f'{change}{eta}'
            )
            fp16 = getattr(loop, 'fp16', False)
            with _averaged(runner), autocast(enabled=fp16):
                found = ablation_metrics(
                    runner.model, loop.dataloader, loop.evaluator, [change]
                )
            values |= {f'ablation/{k}': v for k, v in found.items()}
            each = round((time.monotonic() - begun) / done)
            eta = f'  eta: {timedelta(seconds=each * (count - done))}'
        if not values:
            return
        # not runner.iter, which would build a training's loop in a test
        step = runner.message_hub.get_info('iter', 0)
        runner.visualizer.add_scalars(values, step=step)
        runner.logger.info(
            '  '.join(f'{k}: {v:.4f}' for k, v in values.items())
        )


def _has_maps(model: Any) -> bool:
    if isinstance(model, BaseTTAModel):
        return False
    return any(isinstance(m, AttentiveBottleneck) for m in model.modules())


@contextmanager
def _evaluating_all(evaluator: Any) -> Iterator[None]:
    """With the metrics of maps in what mmdet's MultiDatasetsEvaluator finds,
    which takes a metric a data set and leaves out the rest."""
    prefixes = getattr(evaluator, 'dataset_prefixes', None)
    if prefixes is None:
        yield
        return

    base_evaluate = evaluator.evaluate

    def evaluate(size: int) -> dict[str, float]:
        found = base_evaluate(size)
        for metric in evaluator.metrics[len(prefixes) :]:
            found.update(metric.evaluate(size))
        return found

    with patch.object(evaluator, 'evaluate', evaluate):
        yield


@contextmanager
def _averaged(runner: Runner) -> Iterator[None]:
    """With the weights that the loop evaluated: an EMA's, if there is one,
    which leaves the model when the loop ends."""
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in averages:
            hook.after_val_epoch(runner)
