"""Grad-CAM's map in the place of a gate's (the extra `xai`, package
`grad-cam`): what an explanation made afterwards is worth by the same measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import Tensor, nn

from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.evaluation.ablation import evaluate
from mmaib.functional import resize
from mmaib.functional.sliding import slides
from mmaib.layers import AttentiveBottleneck, MapDistribution
from mmaib.layers.image_cells import changed_cells


class NoGradientError(RuntimeError):
    """The base model's predictions do not depend on its features."""


def why_not(model: Any) -> str | None:
    """Why there is no Grad-CAM of a model, or None; of None, of any."""
    if not find_spec('pytorch_grad_cam'):
        return 'pip install grad-cam (no module pytorch_grad_cam)'
    try:
        import pytorch_grad_cam  # noqa: F401
    except Exception as error:  # whatever a package does when it is broken
        return f'it does not import ({type(error).__name__}: {error})'
    if slides(model):
        return 'the segmentor slides a window, and each would have its map'
    return None


def with_scores_of(own: Tensor, places: Tensor) -> Tensor:
    """The scores of a map ``(N, 1, H, W)`` in the order of another one: its
    highest where the other is highest, and where that is equal, as all that
    Grad-CAM leaves at 0, a fixed random order. So two maps let as much
    through and differ in nothing but the order of their positions."""
    count = own[0].numel()
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(count, generator=generator).to(own.device)
    found = []
    for scores, order in zip(own.flatten(1), places.flatten(1)):
        ranked = shuffled[order[shuffled].argsort(stable=True)]
        placed = torch.empty_like(scores)
        placed[ranked] = scores.sort().values
        found.append(placed)
    return torch.stack(found).view_as(own)


class Confidence(nn.Module):
    """A model as Grad-CAM wants one: images in, for each what there is to
    explain, one number.

    That is the sum of the scores of what a detector found, of the highest
    class's logits over a segmentor's pixels, the highest score of a
    classifier. The gate of the model's bottleneck is left out, and the
    features that it would receive pass one of ``levels`` each."""

    def __init__(self, model: Any, bottleneck: AttentiveBottleneck) -> None:
        super().__init__()
        self.model = model
        self.levels = nn.ModuleList(
            nn.Identity() for _ in range(bottleneck.num_levels)
        )
        self._bottleneck = [bottleneck]  # no module of this one too
        self.data_samples: Any = None

    def forward(self, images: Tensor) -> list[Tensor]:
        with self._gate_left_out() as seen:
            samples = self.model(images, self.data_samples, mode='predict')
        # one that nothing came of has no gradient, and is 0 everywhere
        tie = sum(0 * x.sum() for x in seen)
        scores = [confidence(sample) for sample in samples]
        if any(score and not score.requires_grad for score in scores):
            raise NoGradientError(
                f"{type(self.model).__name__} cuts its predictions' gradient "
                "off, as MMDetection's one-stage heads do"
            )
        return [score + tie for score in scores]

    @contextmanager
    def _gate_left_out(self) -> Iterator[list[Tensor]]:
        """Nothing of the bottleneck runs, so that nobody who watches it takes
        this pass for one of its own."""
        (bottleneck,) = self._bottleneck
        seen: list[Tensor] = []

        def modulate(x: Tensor, attention: Tensor, level: int = 0) -> Tensor:
            # after a frozen base model nothing else asks for a gradient
            seen.append(self.levels[level](x.detach().requires_grad_()))
            return seen[-1]

        own: Any = vars(bottleneck)
        own['attend'] = lambda x: x[:, :1]
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
    """A model whose gate is opened where Grad-CAM says, by the scores of the
    gate's own map, level by level. A map that serves several levels is their
    mean.

    Args:
        model: with one :class:`AttentiveBottleneck`.
        batches: of an evaluation; maps are made in the first alone.
    """

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
        self.explained = Confidence(model, found[0])
        self.batches = batches
        self._batch = self._call = 0
        self._cams: list[Tensor] = []
        self._maps: dict[tuple[int, int], Tensor] = {}
        found[0].attention.register_forward_hook(self._replace)

    def test_step(self, data: dict) -> Any:
        if (self._batch, 0) not in self._maps:
            self._cams = self._explain(data)
        self._call = 0
        samples = self.model.test_step(data)
        self._batch = (self._batch + 1) % self.batches
        return samples

    @torch.enable_grad()
    def _explain(self, data: dict) -> list[Tensor]:
        """A map ``(N, 1, H, W)`` of the images, a level each."""
        from pytorch_grad_cam import GradCAM

        given = self.model.data_preprocessor(data, False)
        images = given['inputs']
        self.explained.data_samples = given['data_samples']
        cams = []
        # a level at a time: with several the package counts on gradients
        # coming in the order of the layers
        for level in self.explained.levels:
            with GradCAM(self.explained, [level]) as cam:
                targets = [lambda score: score] * len(images)
                cams.append(torch.from_numpy(cam(images, targets)))
        return [cam[:, None].to(images) for cam in cams]

    def _replace(
        self, _: nn.Module, __: tuple, maps: MapDistribution
    ) -> MapDistribution:
        mean = maps.mean
        key = self._batch, self._call
        self._call += 1
        if key not in self._maps:
            gate: Any = self.explained._bottleneck[0]
            # a shared map is asked for once
            if gate.map_channels != gate.modulation.out_channels:
                cam = torch.stack(self._cams).mean(0)
            else:
                cam = self._cams[key[1]]
            cam = resize(cam, mean.shape[2:])
            # each image's scores among its own cells
            self._maps[key] = changed_cells(
                torch.cat([mean, cam], 1),
                lambda x: with_scores_of(x[:, :1], x[:, 1:]).expand_as(x),
            )[:, :1]
        cam = self._maps[key]
        return maps.changed(lambda _: cam, lambda std: std)


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
