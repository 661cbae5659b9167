"""What else explains one statement of a model: priors that know no model,
gradients of its features, masks on its input.

Each gives a map ``(H, W)`` of the model's input, higher where the statement
rests more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmaib.functional import enclosing, resize

from .places import Features, Place
from .targets import Target

Maps = Callable[[Tensor, Tensor], Tensor]


def random(size: tuple[int, ...], seed: int = 0) -> Tensor:
    """Uniform noise."""
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def centre(target: Target, size: tuple[int, ...]) -> Tensor:
    """A Gaussian at the centre of the box, or of the image, a third of its
    sides wide: what any map must beat."""
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    left, top, right, bottom = _box(target, size)
    x = (columns - (left + right) / 2) / ((right - left) / 3)
    y = (rows - (top + bottom) / 2) / ((bottom - top) / 3)
    return torch.exp(-0.5 * (y.square()[:, None] + x.square()))


def box(target: Target, size: tuple[int, ...]) -> Tensor:
    """1 in the box, in an order of its own by the noise below it."""
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    left, top, right, bottom = _box(target, size)
    inside = ((rows > top) & (rows < bottom))[:, None] & (
        (columns > left) & (columns < right)
    )
    return inside.float()


def norm(target: Target, features: Features, size: tuple[int, ...]) -> Tensor:
    """The features' norm, mean over levels, within the box."""
    total = torch.zeros(*size)
    for x in features:
        length = x.norm(dim=1, keepdim=True)
        total += resize(length / length.mean(), size, 'bilinear')[0, 0].cpu()
    return total * (box(target, size) + 1e-6)


def grad_cam(x: Tensor, gradient: Tensor) -> Tensor:
    """Selvaraju et al., ICCV 2017: channels by their mean gradient."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * x).sum(1, keepdim=True).relu()


def layer_cam(x: Tensor, gradient: Tensor) -> Tensor:
    """Jiang et al., TIP 2021: positions by their own positive gradient."""
    return (gradient.relu() * x).sum(1, keepdim=True).relu()


def odam(x: Tensor, gradient: Tensor) -> Tensor:
    """Zhao et al., ICLR 2023 (ODAM): the gradient of one detection's score
    times its features."""
    return (gradient * x).sum(1, keepdim=True).relu()


def by_gradient(
    make: Maps,
    features: Features,
    gradient: Sequence[Tensor],
    size: tuple[int, ...],
) -> Tensor:
    """One of the three above, each level to its own maximum of 1, summed."""
    total = torch.zeros(*size)
    for x, g in zip(features, gradient):
        found = make(x, g)
        if found.max() > 0:
            scaled = found / found.max()
            total += resize(scaled, size, 'bilinear')[0, 0].cpu()
    return total


@torch.no_grad()
def d_rise(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    masks: int = 400,
    grid: int = 16,
    share: float = 0.5,
    batch: int = 20,
    seed: int = 0,
) -> Tensor:
    """Petsiuk et al., CVPR 2021: the mean of random masks, each weighed by
    the score of the masked image.

    Args:
        score: of images ``(N, 3, H, W)``.
        images: ``(1, 3, H, W)``, preprocessed.
        masks: how many.
        grid: cells a side of a mask.
        share: of the cells that are open.
        batch: images at a time.
        seed: of the masks.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    cell = -(-height // grid), -(-width // grid)
    total = torch.zeros(height, width)
    for begin in range(0, masks, batch):
        count = min(batch, masks - begin)
        cells = torch.rand((count, 1, grid, grid), generator=generator)
        large = resize(
            (cells < share).float(),
            ((grid + 1) * cell[0], (grid + 1) * cell[1]),
            'bilinear',
        )
        down, across = (
            torch.randint(0, side, (count,), generator=generator).tolist()
            for side in cell
        )
        chosen = torch.stack(
            [
                one[:, y : y + height, x : x + width]
                for one, y, x in zip(large, down, across)
            ]
        )
        weights = score(images * chosen.to(images)).cpu()
        total += (weights[:, None, None] * chosen[:, 0]).sum(0)
    return total / masks


def explain_by(
    name: str,
    target: Target,
    place: Place,
    features: Features,
    gradient: Sequence[Tensor],
    images: Tensor,
    seed: int = 0,
) -> Tensor:
    """A baseline's map, by its name in :data:`BASELINES`."""
    size = images.shape[2:]
    if name == 'random':
        return random(size, seed)
    if name == 'centre':
        return centre(target, size)
    if name == 'box':
        return box(target, size)
    if name == 'norm':
        return norm(target, features, size)
    if name == 'd-rise':
        return d_rise(of_images(target, place), images, seed=seed)
    return by_gradient(BY_GRADIENT[name], features, gradient, size)


def of_images(target: Target, place: Place) -> Callable[[Tensor], Tensor]:
    """The probability of a target on other images of the same size."""

    @torch.no_grad()
    def score(images: Tensor) -> Tensor:
        features = place.to_head(place.features(images), images)
        return target.log_scores(features).exp()

    return score


def _box(target: Target, size: tuple[int, ...]) -> list[float]:
    if target.box is not None:
        return enclosing(target.box).tolist()
    if target.region is not None and target.region.any():
        rows, columns = (target.region.any(d).nonzero() for d in (1, 0))
        return [
            float(columns.min()),
            float(rows.min()),
            float(columns.max() + 1),
            float(rows.max() + 1),
        ]
    return [0.0, 0.0, float(size[1]), float(size[0])]


BY_GRADIENT: dict[str, Maps] = {
    'grad-cam': grad_cam,
    'layer-cam': layer_cam,
    'odam': odam,
}
BASELINES = ('random', 'centre', 'box', 'norm', *BY_GRADIENT, 'd-rise')
