"""A bottleneck for one statement of a model (Schulz et al., *Restricting the
Flow: Information Bottlenecks for Attribution*, ICLR 2020, the per-sample
bottleneck, here at every level of a pyramid and for one detection)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmaib.checks import one_of
from mmaib.functional import gate_information, information_gate, resize

from .baselines import BASELINES, BY_GRADIENT, explain_by
from .places import Features, Place
from .targets import Target

Statistics = Sequence[tuple[Tensor, Tensor]]
# logit of an openness of 0.99
OPEN = 5.0


@dataclass(frozen=True)
class Settings:
    """Of the optimisation.

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


def gradients(
    log_scores: Callable, place: Place, features: Features, images: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The log score and its gradient by the features, zero where it does not
    depend on them.

    Raises:
        ValueError: if the head cuts the gradient off.
    """
    leaves = [x.detach().requires_grad_() for x in features]
    with torch.enable_grad():
        score = log_scores(place.to_head(tuple(leaves), images)).sum()
        if not score.requires_grad:
            raise ValueError(
                f"{type(place.model).__name__} cuts off its score's "
                f'gradient at {place.name!r}: choose another place'
            )
        found = torch.autograd.grad(score, leaves, allow_unused=True)
    return score.detach(), [
        torch.zeros_like(x) if g is None else g
        for x, g in zip(features, found)
    ]


@dataclass(frozen=True)
class Reach:
    """The part of the features that a score depends on: a window a level
    (rows, columns), None for a level without, and the score of that part."""

    windows: list[tuple[slice, slice] | None]
    log_scores: Callable
    cropped: bool

    def part(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Of each level; a level without has four cells, as a group norm
        needs more than one."""
        if not self.cropped:
            return [*features]
        # whole in memory, as mmcv's RoIAlign reads it
        return [
            (x[..., :2, :2] if w is None else x[..., w[0], w[1]]).contiguous()
            for x, w in zip(features, self.windows)
        ]


def reach(
    target: Target,
    place: Place,
    features: Features,
    images: Tensor,
    gradient: Sequence[Tensor],
    own: Tensor,
) -> Reach:
    """What a target depends on, by its gradient. The score of a part alone is
    compared with the whole one's before it is relied on."""
    used = [g.abs().amax((0, 1)) > 0 for g in gradient]
    height, width = images.shape[2:]
    boxes = []  # of each level, in pixels
    for mask in used:
        if mask.any():
            rows, columns = (mask.any(d).nonzero() for d in (1, 0))
            scale = height / mask.shape[0], width / mask.shape[1]
            boxes.append(
                (
                    int(rows.min()) * scale[0],
                    (int(rows.max()) + 1) * scale[0],
                    int(columns.min()) * scale[1],
                    (int(columns.max()) + 1) * scale[1],
                    *scale,
                )
            )

    def whole(features: Features) -> Tensor:
        return target.log_scores(place.to_head(features, images))

    full = Reach(
        [
            (slice(0, m.shape[0]), slice(0, m.shape[1])) if m.any() else None
            for m in used
        ],
        whole,
        False,
    )
    if place.name != 'neck' or target.shifted is None or not boxes:
        return full
    # on the grid of the coarsest level, so that no cell is cut
    step_y, step_x = (max(b[i] for b in boxes) for i in (4, 5))
    top = math.floor(min(b[0] for b in boxes) / step_y) * step_y
    left = math.floor(min(b[2] for b in boxes) / step_x) * step_x
    bottom = math.ceil(max(b[1] for b in boxes) / step_y) * step_y
    right = math.ceil(max(b[3] for b in boxes) / step_x) * step_x
    windows: list[tuple[slice, slice] | None] = []
    for mask in used:
        if not mask.any():
            windows.append(None)
            continue
        y, x = (s / n for s, n in zip((height, width), mask.shape))
        windows.append(
            (
                slice(round(top / y), round(bottom / y)),
                slice(round(left / x), round(right / x)),
            )
        )
    part = Reach(
        windows, target.shifted(round(left), round(top), features), True
    )
    with torch.no_grad():
        alone = part.log_scores(tuple(part.part(features)))
    return part if (alone - own).abs().max() < 1e-3 else full


def _from_0_1_to_0_9(found: Tensor) -> Tensor:
    """As openness."""
    return 0.1 + 0.8 * found / found.max().clamp(min=1e-12)


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
    """
    chosen = settings or Settings()
    own, gradient = gradients(target.log_scores, place, features, images)
    found = reach(target, place, features, images, gradient, own)
    levels = [i for i, w in enumerate(found.windows) if w is not None]
    parts = [x.detach() for x in found.part(features)]
    moments = [(m.to(parts[0]), s.to(parts[0])) for m, s in statistics]
    generator = torch.Generator().manual_seed(chosen.seed)
    slopes = found.part(gradient)
    begin = {i: torch.full_like(parts[i][:, :1], OPEN) for i in levels}
    if not missed and chosen.start in BY_GRADIENT:
        make = BY_GRADIENT[chosen.start]
        for i in levels:
            begin[i] = _from_0_1_to_0_9(make(parts[i], slopes[i])).logit()
    elif not missed:
        given = target, place, features, gradient, images
        whole = explain_by(chosen.start, *given, chosen.seed)[None, None]
        on_levels = [resize(whole, x.shape[2:]).to(x) for x in features]
        for i, x in enumerate(found.part(on_levels)):
            if i in begin:
                begin[i] = _from_0_1_to_0_9(x).logit()
    logits = {i: x.requires_grad_() for i, x in begin.items()}
    if not logits:
        empty = torch.zeros(images.shape[2:])
        return BottleneckResult(
            empty, target.score, target.score, target.score
        )
    adam = torch.optim.Adam([*logits.values()], lr=chosen.lr)
    count = sum(parts[i].numel() for i in levels)
    open_nats = sum(
        gate_information(
            parts[i], torch.ones_like(parts[i][:, :1]), *moments[i]
        ).sum()
        for i in levels
    )
    with torch.enable_grad():
        for _ in range(chosen.steps):
            gated = [x.expand(chosen.samples, -1, -1, -1) for x in parts]
            nats = parts[0].new_zeros(())
            for i in levels:
                openness = _smooth(logits[i].sigmoid())
                mean, std = moments[i]
                noise = torch.randn(gated[i].shape, generator=generator)
                noise = mean + std * noise.to(parts[i])
                gated[i] = information_gate(parts[i], openness, noise)
                nats = (
                    nats
                    + gate_information(parts[i], openness, mean, std).sum()
                )
            paid = open_nats - nats if missed else nats
            loss = -found.log_scores(tuple(gated)).mean()
            loss = loss + chosen.beta * paid / count
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        opened = {i: _smooth(x.sigmoid()) for i, x in logits.items()}
        bits = torch.zeros(images.shape[2:])
        for i in levels:
            nats = gate_information(parts[i], opened[i], *moments[i])
            if missed:
                full = torch.ones_like(opened[i])
                nats = gate_information(parts[i], full, *moments[i]) - nats
            bits += _on_input(
                nats.sum(1, keepdim=True) / math.log(2),
                found.windows[i] if found.cropped else None,
                features[i].shape[2:],
                images.shape[2:],
            )

        everything = sum(features[i].numel() for i in levels)
        smaller = found.cropped and count < everything

        def probability(change: Callable[[Tensor], Tensor]) -> float:
            gated = [*parts]
            for i in levels:
                gated[i] = information_gate(
                    parts[i], change(opened[i]), moments[i][0]
                )
            return found.log_scores(tuple(gated)).exp().item()

        return BottleneckResult(
            bits,
            probability(lambda a: a),
            probability(lambda a: 1 - a),
            probability(lambda a: a.flip(-1)) if smaller else None,
        )


def _on_input(
    amounts: Tensor,
    window: tuple[slice, slice] | None,
    grid: tuple[int, ...],
    size: tuple[int, ...],
) -> Tensor:
    """Amounts of the cells of a part as amounts of the input's pixels, the
    same sum."""
    if window is not None:
        whole = amounts.new_zeros((1, 1, *grid))
        whole[..., window[0], window[1]] = amounts
        amounts = whole
    smooth = resize(amounts, size, 'bilinear')[0, 0].cpu().clamp(min=0)
    return smooth * (amounts.sum().cpu() / smooth.sum().clamp(min=1e-12))
