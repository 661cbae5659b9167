from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmaib.registry import HOOKS


@HOOKS.register_module()
class FiniteCheckHook(Hook):
    """Stop a training at the first number that is not finite.

    Checked are the images of each batch before they enter the model (those
    of integers cannot be wrong and cost nothing), the losses after each
    step, and the weights before they enter a checkpoint. The message names
    the images of the batch, the losses or the weights. No checkpoint is
    written after that, so the last one is good.

    Raises:
        FloatingPointError: from the training step or the checkpoint.
    """

    # Before MMEngine's hooks log the losses.
    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        for image, path in zip(_images(data_batch), _paths(data_batch)):
            if not _finite(image):
                values = (~image.isfinite()).sum().item()
                raise FloatingPointError(
                    f'{values} of {image.numel()} values of the input are '
                    f'not finite, as it comes out of the pipeline: {path} '
                    f'({_when(runner)})'
                )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        wrong = {
            name: float(value)
            for name, value in (outputs or {}).items()
            if not _finite(torch.as_tensor(value))
        }
        if wrong:
            raise FloatingPointError(
                f'not finite: {wrong} ({_when(runner)}), images '
                f'{[*_paths(data_batch)]}. A smaller lr, a longer warm-up or '
                'clip_grad often help; no checkpoint was written since'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        wrong = [
            name
            for name, value in checkpoint['state_dict'].items()
            if not _finite(value)
        ]
        if wrong:
            raise FloatingPointError(
                f'not finite: {len(wrong)} weights, the first {wrong[:5]} '
                f'({_when(runner)}). They were not saved; the last '
                'checkpoint is good'
            )


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def _images(batch: Any) -> Iterable[Tensor]:
    """The images of a batch as the hosts' data sets give it."""
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    return inputs if isinstance(inputs, (Sequence, Tensor)) else ()


def _paths(batch: Any) -> Iterator[str]:
    """Where the images of a batch come from, '?' if unknown."""
    for sample in batch.get('data_samples') or ():
        yield getattr(sample, 'img_path', '?')


def _when(runner: Runner) -> str:
    return f'iteration {runner.iter + 1}, rank {get_rank()}'
