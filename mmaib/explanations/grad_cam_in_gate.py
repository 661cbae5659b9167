"""Grad-CAM's map in the place of a gate's: what an explanation made afterwards
is worth by the same measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import Tensor, nn

from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.evaluation.ablation import evaluate
from mmaib.functional import resize
from mmaib.layers import AttentiveBottleneck, MapDistribution
from mmaib.layers.capture import in_order_of

from .baselines import grad_cam


class NoGradientError(RuntimeError):
    """The base model's predictions do not depend on its features."""


@torch.enable_grad()
def grad_cams(
    model: Any, bottleneck: AttentiveBottleneck, data: dict
) -> list[Tensor]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of a batch, the gate left out: a
    map ``(N, 1, H, W)`` from 0 to 1 for each level that it would receive.

    Explained is the sum of the scores of what a detector found, of the highest
    class's logits over a segmentor's pixels, the highest score of a
    classifier.

    Raises:
        NoGradientError: if that does not depend on these features.
    """
    given = model.data_preprocessor(data, False)
    with _gate_left_out(bottleneck) as levels:
        samples = model(**given, mode='predict')
    scores = [confidence(sample) for sample in samples]
    if any(score and not score.requires_grad for score in scores):
        raise NoGradientError(
            f"{type(model).__name__} cuts its predictions' gradient "
            "off, as MMDetection's one-stage heads do"
        )
    # what nothing came of has no gradient, and is 0 everywhere
    total: Any = sum(scores) + sum(0 * x.sum() for x in levels)
    gradients = torch.autograd.grad(total, levels)
    cams = []
    for x, gradient in zip(levels, gradients):
        cam = grad_cam(x, gradient).detach()
        cam = cam - cam.amin((1, 2, 3), keepdim=True)
        cams.append(cam / (1e-7 + cam.amax((1, 2, 3), keepdim=True)))
    return cams


@contextmanager
def _gate_left_out(bottleneck: AttentiveBottleneck) -> Iterator[list[Tensor]]:
    """The features of each level, which pass as they are. Nothing of the
    bottleneck runs, so that nobody who watches it takes this pass for one of
    its own."""
    seen: list[Tensor] = []

    def modulate(x: Tensor, attention: Tensor, level: int = 0) -> Tensor:
        # after a frozen base model nothing else asks for a gradient
        seen.append(x.detach().requires_grad_())
        return seen[-1]

    own: Any = vars(bottleneck)
    own['attend'] = lambda levels: [x[:, :1] for x in levels]
    own['modulate'] = modulate
    try:
        yield seen
    finally:
        del own['attend'], own['modulate']


def confidence(sample: Any) -> Tensor:
    """What is to be explained of a data sample."""
    if 'pred_instances' in sample:
        return sample.pred_instances.scores.sum()
    if 'seg_logits' in sample:
        return sample.seg_logits.data.amax(0).sum()
    return sample.pred_score.max()


class GradCAMInGate(nn.Module):
    """A model with one :class:`AttentiveBottleneck` whose gate is opened where
    Grad-CAM says, by the scores of the gate's own map, level by level. A map
    that serves several levels is their mean. Maps are made in the first of
    several evaluations of so many batches."""

    def __init__(self, model: Any, batches: int) -> None:
        super().__init__()
        self.model = model
        found = [
            m for m in model.modules() if isinstance(m, AttentiveBottleneck)
        ]
        if len(found) != 1:
            raise ValueError(
                f'Grad-CAM needs a model with one AttentiveBottleneck, got '
                f'{len(found)}'
            )
        self.bottleneck = found[0]
        self.batches = batches
        self._batch = self._call = 0
        self._cams: list[Tensor] = []
        self._maps: dict[tuple[int, int], Tensor] = {}
        found[0].attention.register_forward_hook(self._replace)

    def test_step(self, data: dict) -> Any:
        if (self._batch, 0) not in self._maps:
            self._cams = grad_cams(self.model, self.bottleneck, data)
        self._call = 0
        samples = self.model.test_step(data)
        self._batch = (self._batch + 1) % self.batches
        return samples

    def _replace(
        self, _: nn.Module, __: tuple, maps: MapDistribution
    ) -> MapDistribution:
        mean = maps.mean
        key = self._batch, self._call
        self._call += 1
        if key not in self._maps:
            cams = [resize(cam, mean.shape[2:]) for cam in self._cams]
            gate: Any = self.bottleneck
            # a shared map is asked for once
            if gate.map_channels != gate.modulation.out_channels:
                cam = torch.stack(cams).mean(0)
            else:
                cam = cams[key[1]]
            self._maps[key] = cam
        return in_order_of(maps, self._maps[key], lambda cam: cam)


def measured(
    model: Any,
    dataloader: Any,
    evaluator: Evaluator,
    changes: tuple[str, ...],
    metric: AttentionMetric,
) -> dict[str, float]:
    """What the log of a readout's validation has, of Grad-CAM's map in its
    gate, with its ``changes`` and its ``metric``."""
    applied = GradCAMInGate(model, len(dataloader))
    watched = Evaluator([*evaluator.metrics, metric])
    watched.dataset_meta = dataloader.dataset.metainfo
    with metric.watching(model, dataloader.dataset):
        found = evaluate(applied, dataloader, watched)
    lost = ablation_metrics(applied, dataloader, evaluator, changes)
    found.update({f'ablation/{k}': v for k, v in lost.items()})
    return {name: float(value) for name, value in found.items()}
