from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmaib.models.wrapping import unwrapped
from mmaib.registry import HOOKS


@HOOKS.register_module()
class FiniteCheckHook(Hook):
    """Stop a training at the first number that is not finite.

    Checked are the images of each batch before they enter the model (those
    of integers cannot be wrong and cost nothing), the losses after each
    step, and the weights before they enter a checkpoint: infinite ones are
    let through only where they may be meant, in what does not learn and was
    infinite when the training began, or was not there yet. At each step a GPU
    is waited for once, however many values there are. The message names the
    images of the batch, the losses or the weights. No checkpoint is written
    after that, so the last one is good.

    Raises:
        FloatingPointError: from the training step or the checkpoint.
    """

    # Before MMEngine's hooks log the losses.
    priority = 'VERY_HIGH'
    _finite: Set[str] = frozenset()

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        learning = {k for k, p in model.named_parameters() if p.requires_grad}
        self._finite = learning | {
            name
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor) and _all_finite([value])
        }

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        paths, inputs = _paths(data_batch), _of_batch(data_batch, 'inputs')
        images = [x for x in inputs if isinstance(x, Tensor)]
        if _all_finite(images):
            return
        for number, image in enumerate(images):
            if not _all_finite([image]):
                values = (~image.isfinite()).sum().item()
                path = paths[number] if number < len(paths) else paths
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
        found = outputs if isinstance(outputs, dict) else {}
        logged = {
            name: torch.as_tensor(value)
            for name, value in found.items()
            if isinstance(value, float)
            or (isinstance(value, Tensor) and value.numel() == 1)
        }
        if not _all_finite([*logged.values()]):
            wrong = {
                name: float(value)
                for name, value in logged.items()
                if not _all_finite([value])
            }
            raise FloatingPointError(
                f'not finite: {wrong} ({_when(runner)}), images '
                f'{_paths(data_batch)}. A smaller lr, a longer warm-up or '
                'clip_grad often help; no checkpoint was written since'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        wrong = [
            name
            for name, value in checkpoint['state_dict'].items()
            if isinstance(value, Tensor) and not _all_finite([value])
            if name in self._finite or value.float().isnan().any()
        ]
        if wrong:
            raise FloatingPointError(
                f'{len(wrong)} weights are not finite, the first {wrong[:5]} '
                f'({_when(runner)}). They were not saved: an earlier '
                'checkpoint is good'
            )


def _all_finite(values: list[Tensor]) -> bool:
    """Whether all numbers are, asking each device once."""
    answers = defaultdict(list)
    for value in values:
        if value.is_floating_point():
            wide = value.float() if value.element_size() == 1 else value
            answers[value.device].append(wide.isfinite().all())
    return all(bool(torch.stack(found).all()) for found in answers.values())


def _of_batch(batch: Any, field: str) -> list[Any]:
    """The ``inputs`` or ``data_samples`` of a batch, as the base libraries'
    data sets give it; those of every branch, if there are several."""
    found = batch.get(field) if isinstance(batch, dict) else None
    branches = found.values() if isinstance(found, dict) else [found]
    several = (list, tuple, Tensor)
    return [x for b in branches if isinstance(b, several) for x in b]


def _paths(batch: Any) -> list[str]:
    """Where the images of a batch come from: a file, or its number in the
    data set, or '?' if unknown."""
    return [
        getattr(sample, 'img_path', getattr(sample, 'sample_idx', '?'))
        for sample in _of_batch(batch, 'data_samples')
    ]


def _when(runner: Runner) -> str:
    return f'iteration {runner.iter + 1}, rank {get_rank()}'
