"""A bottleneck for one statement of a model (Schulz et al., *Restricting the
Flow: Information Bottlenecks for Attribution*, ICLR 2020, the per-sample
bottleneck, here at every level of a pyramid and for one detection)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmaib.checks import one_of
from mmaib.functional import gate_information, information_gate, resize

from .baselines import BASELINES, BY_GRADIENT, explain_by
from .places import Features, Place
from .reach import Reach, gradients, reach
from .targets import Target

Statistics = Sequence[tuple[Tensor, Tensor]]
# logit of an openness of 0.99
OPEN = 5.0


@dataclass(frozen=True)
class Settings:
    """Settings of the optimisation.

    Attributes:
        beta: price of the information, mean over the features that the
            score depends on, in nats.
        steps, lr: of Adam, over the logits of the openness.
        samples: of the noise a step.
        seed: of the noise.
        start: the method whose map the gate is as open as at first, one of
            :data:`~mmaib.explanations.baselines.BASELINES`. Without a step
            that map is what is explained by.

    Raises:
        ValueError: if there is no such method.
    """

    beta: float = 0.3
    steps: int = 20
    lr: float = 1.0
    samples: int = 4
    seed: int = 0
    start: str = 'layer-cam'

    def __post_init__(self) -> None:
        one_of('start', self.start, BASELINES)


@dataclass(frozen=True)
class BottleneckResult:
    """What of an image a statement rests on.

    Attributes:
        bits: ``(H, W)`` of the model's input, the bits that the gate lets
            pass of each pixel; their sum is what the statement needs.
        kept: the model's probability where only that passes.
        without: where all but that passes.
        mirrored: where the gate's openness is mirrored, left to right,
            within the window that the statement depends on; None if that is
            all of the image.
    """

    bits: Tensor
    kept: float
    without: float
    mirrored: float | None


class Gate:
    """An information gate at the levels that a statement depends on. Its
    openness is one ``(1, 1, h, w)`` for each of them, of a window that has
    all that the statement depends on."""

    def __init__(
        self, found: Reach, features: Features, statistics: Statistics
    ) -> None:
        self.levels, self.windows = found.levels, found.windows
        self.log_scores = found.log_scores
        self.parts = [x.detach() for x in found.part(features)]
        self.moments = [
            [moment.to(self.parts[i]) for moment in statistics[i]]
            for i in self.levels
        ]

    def nats(self, openness: Sequence[Tensor]) -> list[Tensor]:
        """What passes of each feature."""
        return [
            gate_information(self.parts[i], a, mean, std)
            for i, a, (mean, std) in zip(self.levels, openness, self.moments)
        ]

    def passed(
        self,
        openness: Sequence[Tensor],
        samples: int = 0,
        generator: torch.Generator | None = None,
    ) -> Features:
        """The features after the gate, for so many samples of its noise;
        without any, with the noise at its mean."""
        passed = [x.expand(max(samples, 1), -1, -1, -1) for x in self.parts]
        for i, a, (noise, std) in zip(self.levels, openness, self.moments):
            if samples:
                drawn = torch.randn(passed[i].shape, generator=generator)
                noise = noise + std * drawn.to(noise)
            passed[i] = information_gate(self.parts[i], a, noise)
        return tuple(passed)

    def probability(self, openness: Sequence[Tensor]) -> float:
        """The model's probability where only that passes, the noise at its
        mean."""
        return self.log_scores(self.passed(openness)).exp().item()


def _logits(found: Tensor) -> Tensor:
    """Logits of a map that is scaled to an openness of 0.1 to 0.9."""
    return (0.1 + 0.8 * found / found.max().clamp(min=1e-12)).logit()


def _smooth(openness: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(openness, (1,) * 4, mode='replicate'), 3, 1)


def per_sample_bottleneck(
    target: Target,
    place: Place,
    features: Features,
    images: Tensor,
    statistics: Statistics,
    settings: Settings | None = None,
    missed: bool = False,
) -> BottleneckResult:
    r"""Find how little of the features is enough for a statement.

    The openness a of each position of each level minimises

    .. math::
        -E_\epsilon \log p(a x + (1 - a) \epsilon)
        + \beta \, D[N(a x + (1 - a) \mu, (1 - a)^2 \sigma^2)
        \,\|\, N(\mu, \sigma^2)]

    with noise of the features' own mean and std, from the map of
    ``settings.start`` on. The gate covers only positions with a gradient of
    the score; features are cropped to them where the target's head allows
    that.

    Args:
        target: the statement.
        place: where features are gated.
        features: those of the image there.
        images: the preprocessed image ``(1, 3, H, W)``.
        statistics: mean and std of each channel, a level each.
        settings: of the optimisation.
        missed: find instead what speaks against the statement: the fewest
            bits that must be shut for its probability to rise. ``bits`` are
            then those that are shut.

    Raises:
        ValueError: if the head cuts the score's gradient off.
    """
    given = target, place, features, images, statistics
    gate, openness = optimised(*given, settings or Settings(), missed)
    size, score = images.shape[2:], target.score
    if not gate.levels:
        return BottleneckResult(torch.zeros(size), score, score, score)
    smaller = any(
        gate.parts[i].numel() < features[i].numel() for i in gate.levels
    )
    with torch.no_grad():
        bits = torch.zeros(size)
        for i, nats in zip(gate.levels, _paid(gate, openness, missed)):
            per_cell = features[i].new_zeros((1, 1, *features[i].shape[2:]))
            rows, columns = gate.windows[i]
            per_cell[..., rows, columns] = nats.sum(1) / math.log(2)
            bits += _on_input(per_cell, size)
        mirrored = [a.flip(-1) for a in openness]
        return BottleneckResult(
            bits,
            gate.probability(openness),
            gate.probability([1 - a for a in openness]),
            gate.probability(mirrored) if smaller else None,
        )


def optimised(
    target: Target,
    place: Place,
    features: Features,
    images: Tensor,
    statistics: Statistics,
    settings: Settings,
    missed: bool = False,
) -> tuple[Gate, list[Tensor]]:
    """The gate, and its openness after the optimisation; see
    :func:`per_sample_bottleneck`."""
    own, gradient = gradients(target.log_scores, place, features, images)
    found = reach(target, place, features, images, gradient, own)
    gate = Gate(found, features, statistics)
    if not gate.levels:  # the score depends on no feature
        return gate, []
    if missed:
        start = [torch.full_like(x[:, :1], OPEN) for x in gate.parts]
    elif settings.start in BY_GRADIENT:
        make = BY_GRADIENT[settings.start]
        start = [*map(_logits, map(make, gate.parts, found.part(gradient)))]
    else:
        given = target, place, features, gradient, images
        whole = explain_by(settings.start, *given, settings.seed)[None, None]
        maps = [resize(whole, x.shape[2:]).to(x) for x in features]
        start = [*map(_logits, found.part(maps))]
    logits = [start[i].requires_grad_() for i in gate.levels]
    count = sum(gate.parts[i].numel() for i in gate.levels)
    adam = torch.optim.Adam(logits, lr=settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.enable_grad():
        for _ in range(settings.steps):
            openness = [_smooth(x.sigmoid()) for x in logits]
            passed = gate.passed(openness, settings.samples, generator)
            nats = sum(x.sum() for x in _paid(gate, openness, missed))
            loss = -gate.log_scores(passed).mean()
            loss = loss + settings.beta * nats / count
            adam.zero_grad()
            loss.backward()
            adam.step()
    return gate, [_smooth(x.detach().sigmoid()) for x in logits]


def _paid(
    gate: Gate, openness: Sequence[Tensor], missed: bool
) -> list[Tensor]:
    """The nats that have a price: those that pass or, of what speaks against
    a statement, those that do not."""
    nats = gate.nats(openness)
    if not missed:
        return nats
    everything = gate.nats([torch.ones_like(a) for a in openness])
    return [full - passed for full, passed in zip(everything, nats)]


def _on_input(amounts: Tensor, size: tuple[int, ...]) -> Tensor:
    """Amounts ``(1, 1, H, W)`` of a level's cells as amounts of the input's
    pixels, the same sum."""
    smooth = resize(amounts, size, 'bilinear')[0, 0].cpu().clamp(min=0)
    return smooth * (amounts.sum().cpu() / smooth.sum().clamp(min=1e-12))
