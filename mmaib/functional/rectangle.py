r"""Soft rotated rectangles, [RECT], and how they move with an image.

A rectangle is five numbers in its last axis: :math:`(\mu_1, \mu_2, \sigma_1,
\sigma_2, \alpha)`, centre, half extents and angle, in this order. The first
of each pair is along rows, from the top. A map's first and last rows lie at 0
and 1, and so do its first and last columns, Eq. 5; a row or column that is
alone lies at 0.5. So a turn is one of pixels where the map is square, and has
a shear in it elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gaussian import at_least_float32

# half extents below count as it, so that a window has a gradient
MIN_EXTENT = 1e-3
# a sigmoid of less is 0, and its square's gradient must not be inf * 0
LOWEST_LOGIT = -80.0


def rectangle_window(
    params: Tensor, size: tuple[int, int], sharpness: float = 6.0
) -> Tensor:
    r"""A function nearly 1 within a rectangle and nearly 0 outside, Eq. 2
    to 5 of [RECT].

    .. math::
        f_{ij} = \Lambda(s (1 - u^2)) \, \Lambda(s (1 - v^2)), \quad
        \begin{pmatrix} \sigma_1 u \\ \sigma_2 v \end{pmatrix}
        = R_{-\alpha} \begin{pmatrix} \frac{i}{H - 1} - \mu_1 \\
        \frac{j}{W - 1} - \mu_2 \end{pmatrix}

    with the logistic function :math:`\Lambda`. On a side's middle it is half
    of what it is in the centre, in a corner a quarter. The same map comes
    from :math:`\alpha + \pi`, and from :math:`(\sigma_2, \sigma_1, \alpha +
    \pi / 2)`.

    Args:
        params: ``(..., 5)``, see the module.
        size: H and W of the map.
        sharpness: s.

    Returns:
        ``(..., H, W)``, float32 or wider.

    Example:
        >>> params = torch.tensor([[0.5, 0.5, 0.3, 0.2, 0.0]])
        >>> rectangle_window(params, (7, 9)).shape
        torch.Size([1, 7, 9])
    """
    params = at_least_float32(params)
    mu_1, mu_2, sigma_1, sigma_2, alpha = (
        p[..., None, None] for p in params.unbind(-1)
    )
    rows = positions(size[0], params)[:, None] - mu_1
    columns = positions(size[1], params) - mu_2
    cos, sin = alpha.cos(), alpha.sin()
    u = (cos * rows + sin * columns) / sigma_1.clamp(min=MIN_EXTENT)
    v = (cos * columns - sin * rows) / sigma_2.clamp(min=MIN_EXTENT)
    along, across = (
        (sharpness * (1 - t.square())).clamp(min=LOWEST_LOGIT).sigmoid()
        for t in (u, v)
    )
    return along * across


def rectangle_corners(params: Tensor) -> Tensor:
    r"""The four corners, in their order around the rectangle.

    .. math::
        (\mu_1, \mu_2)^T + R_\alpha (\pm \sigma_1, \pm \sigma_2)^T

    Args:
        params: ``(..., 5)``, see the module.

    Returns:
        ``(..., 4, 2)``, each along rows, then along columns.

    Example:
        >>> rectangle_corners(torch.tensor([0.5, 0.5, 0.3, 0.2, 0.0]))
        tensor([[0.2000, 0.3000],
                [0.2000, 0.7000],
                [0.8000, 0.7000],
                [0.8000, 0.3000]])
    """
    mu_1, mu_2, sigma_1, sigma_2, alpha = params[..., None].unbind(-2)
    u = sigma_1 * params.new_tensor([-1, -1, 1, 1])
    v = sigma_2 * params.new_tensor([-1, 1, 1, -1])
    cos, sin = alpha.cos(), alpha.sin()
    return torch.stack(
        [mu_1 + cos * u - sin * v, mu_2 + sin * u + cos * v], -1
    )


def periodic_residual(found: Tensor, target: Tensor) -> Tensor:
    r"""How far rectangles are from where they should be, whichever of their
    names they have.

    .. math::
        \min_{(\hat\sigma, \hat\alpha)} \; \|\mu - \hat\mu\|^2
        + \|\sigma - \hat\sigma\|^2 + \sin^2(\alpha - \hat\alpha)

    over the target as it is and with its axes swapped, :math:`(\hat\sigma_2,
    \hat\sigma_1, \hat\alpha + \pi / 2)`, the same map. [RECT] squares the
    difference of all five (:func:`l2_residual`), which punishes a turn by
    :math:`\pi`, that no map shows.

    Args:
        found: ``(..., 5)``.
        target: the same shape.

    Returns:
        ``(...)``, float32 or wider.

    Example:
        >>> found = torch.tensor([0.5, 0.5, 0.3, 0.2, 0.1])
        >>> same = torch.tensor([0.5, 0.5, 0.2, 0.3, 0.1 + torch.pi / 2])
        >>> float(periodic_residual(found, same)) < 1e-6
        True
    """
    found, target = at_least_float32(found), at_least_float32(target)
    centre = (found - target)[..., :2].square().sum(-1)
    extents, wanted = found[..., 2:4], target[..., 2:4]
    angle = found[..., 4] - target[..., 4]
    as_named = (extents - wanted).square().sum(-1) + angle.sin().square()
    swapped = (extents - wanted.flip(-1)).square().sum(
        -1
    ) + angle.cos().square()
    return centre + torch.minimum(as_named, swapped)


def l2_residual(found: Tensor, target: Tensor) -> Tensor:
    """The squared difference of all five parameters, Section 4.4 of [RECT].

    Args:
        found: ``(..., 5)``.
        target: the same shape.

    Returns:
        ``(...)``, float32 or wider.

    Example:
        >>> found, target = torch.rand(2, 3, 8, 5)
        >>> l2_residual(found, target).shape
        torch.Size([3, 8])
    """
    found, target = at_least_float32(found), at_least_float32(target)
    return (found - target).square().sum(-1)


def warp_images(images: Tensor, warp: Tensor) -> Tensor:
    r"""Turn images about their centre, scale and move them, Section 4.4 of
    [RECT]; what comes from outside is 0.

    A point at p, from the centre and in sides of the image, goes to
    :math:`s R_\alpha p + \delta`. Where an image is not square, so are its
    units not, and a turn has a shear in it, as :func:`rectangle_window`'s
    has.

    Args:
        images: ``(N, C, H, W)``.
        warp: ``(N, 4)``: angle in radians, scale s > 0 and shift
            :math:`\delta`, down and to the right.

    Returns:
        The same shape.

    Example:
        >>> warp = torch.tensor([[0.5, 1.2, 0.1, 0.0]])
        >>> warp_images(torch.rand(1, 3, 32, 32), warp).shape
        torch.Size([1, 3, 32, 32])
    """
    angle, scale, down, right = warp.to(torch.float32).unbind(-1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # where each pixel comes from; (x, y) in half sides
    down, right = 2 * down, 2 * right
    source = torch.stack(
        [
            torch.stack([cos, -sin, sin * down - cos * right], -1),
            torch.stack([sin, cos, -sin * right - cos * down], -1),
        ],
        -2,
    )
    size = list(images.shape)
    grid = torch.nn.functional.affine_grid(source, size, align_corners=False)
    return torch.nn.functional.grid_sample(
        images, grid.to(images.dtype), align_corners=False
    )


def warp_rectangles(
    params: Tensor, warp: Tensor, size: tuple[int, int]
) -> Tensor:
    r"""Where rectangles are once their image is warped.

    [RECT] prints a scaling of :math:`\mu` about the corner; an image is
    scaled about its centre, and so is this. A map's grid of n positions
    spans (n - 1) / n of the image, since its first lies in the middle of a
    cell, by which the shift is divided. Exact where ``size`` is square;
    elsewhere up to the ratio of these spans.

    Args:
        params: ``(N, ..., 5)``.
        warp: ``(N, 4)``, see :func:`warp_images`.
        size: H and W of the map that the parameters belong to.

    Returns:
        The same shape.

    Example:
        >>> params = torch.tensor([[[0.5, 0.5, 0.3, 0.2, 0.0]]])
        >>> warp_rectangles(params, torch.tensor([[0.0, 2, 0, 0]]), (8, 8))
        tensor([[[0.5000, 0.5000, 0.6000, 0.4000, 0.0000]]])
    """
    warp = warp.view(-1, *[1] * (params.dim() - 2), 4)
    angle, scale, down, right = warp.unbind(-1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows, columns, first, second, alpha = params.unbind(-1)
    rows, columns = rows - 0.5, columns - 0.5
    return torch.stack(
        [
            0.5 + cos * rows - sin * columns + down / _span(size[0]),
            0.5 + sin * rows + cos * columns + right / _span(size[1]),
            scale * first,
            scale * second,
            alpha + angle,
        ],
        -1,
    )


def _span(positions: int) -> float:
    """What of the image lies between the first and the last of them."""
    return max(positions - 1, 1) / positions


def positions(count: int, like: Tensor) -> Tensor:
    """Where the rows or columns of a map lie, in [0, 1]."""
    if count == 1:
        return like.new_full((1,), 0.5)
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return steps / (count - 1)
