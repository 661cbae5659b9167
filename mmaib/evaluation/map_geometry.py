"""Where attention maps lie on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmaib.functional import rectangle_corners, resize
from mmaib.functional.sliding import slides, stitched, windows
from mmaib.layers import CapturedMap
from mmaib.layers.image_cells import (
    cell_shares,
    cell_window,
    covered,
    image_box,
    padded_size,
)


def of_the_image(x: Tensor, metainfo: dict) -> Tensor:
    """What of a map ``(..., H, W)`` is the image's own, to the nearest cell;
    all of it, if the data sample has no ``img_shape``."""
    if 'img_shape' not in metainfo:
        return x
    rows, columns = cell_window(
        image_box(metainfo), padded_size(metainfo), x.shape[-2:]
    )
    return x[..., rows, columns]


def image_shares(x: Tensor, metainfo: dict) -> Tensor:
    """The share of each cell of a map ``(..., H, W)`` that is image; 1 where
    nothing is known of it."""
    shares, grid = None, x.shape[-2:]
    if 'img_shape' in metainfo:
        shares = cell_shares(image_box(metainfo), padded_size(metainfo), grid)
    return (torch.ones(grid) if shares is None else shares).to(x.device)


def map_on_image(
    attention: Tensor, metainfo: dict, mode: str = 'bilinear'
) -> Tensor:
    """Resize a map to the original image.

    The map covers the padded batch; the padding, of the batch and of the
    pipeline, is cut off before the image is scaled back, and has no part in
    what is interpolated at the image's edges.

    Args:
        attention: ``(H, W)``.
        metainfo: of the data sample: ``ori_shape``, ``img_shape`` and, if
            the batch was padded, ``batch_input_shape`` or mmseg's
            ``pad_shape``; ``scale_factor``, if the pipeline pads.
        mode: of ``torch.nn.functional.interpolate``.

    Returns:
        ``ori_shape``, on the CPU.
    """
    top, bottom, left, right = image_box(metainfo)
    size = padded_size(metainfo)
    rows, columns = (
        # cells that have no part of the image are as the nearest that has
        torch.arange(cells).clamp(
            first * cells // side, -(-last * cells // side) - 1
        )
        for first, last, side, cells in zip(
            (top, left), (bottom, right), size, attention.shape
        )
    )
    full = attention.float().cpu()[rows][:, columns]
    full = resize(full[None, None], size, mode)
    full = full[..., top:bottom, left:right]
    return resize(full, metainfo['ori_shape'][:2], mode)[0, 0]


def spread(x: Tensor, size: Sequence[int]) -> Tensor:
    """Amounts on another grid, such as bits: each cell's is divided by area
    over the cells that it covers, so that the sum stays what it was, which
    interpolation does not keep. ``size``: height and width of the new grid.

    Example:
        >>> spread(torch.tensor([[6.0, 3.0]]), (1, 3))
        tensor([[4., 3., 2.]])
    """
    shares = []
    for old, new in zip(x.shape[-2:], size):
        first = torch.arange(new)[:, None].double()
        shares.append(covered(first, first + 1, new, old).to(x))
    return shares[0] @ x @ shares[1].T


def whole_maps(
    model: Any, maps: Sequence[CapturedMap], metainfo: dict
) -> Sequence[CapturedMap]:
    """Maps of the whole image, where a segmentor saw it window by window.

    Args:
        model: the segmentor, or any other model, whose maps are left alone.
        maps: what :func:`capture_attention` recorded of one batch.
        metainfo: of one of its data samples.

    Returns:
        the maps in pixels of the resized image, the mean over windows that
        overlap; of quantised maps, which a mean would blur, the last
        window's. Bits are bits a pixel, so that their sum is the image's
        with every pixel counted once, however many windows saw it.
    """
    if not slides(model):
        return maps
    size = padded_size(metainfo)
    crop, stride = model.test_cfg['crop_size'], model.test_cfg['stride']
    boxes = windows(size, crop, stride)
    per_window = len(maps) // len(boxes)
    whole = []
    for level in range(per_window):
        parts = maps[level::per_window]
        mean, quantized = stitched([p.mean for p in parts], boxes, size), None
        if scores := [p.quantized for p in parts if p.quantized is not None]:
            quantized = torch.zeros_like(mean)
            for part, (rows, columns) in zip(scores, boxes):
                box = (rows.stop - rows.start, columns.stop - columns.start)
                quantized[..., rows, columns] = resize(part, box, 'nearest')
        # one of each for every level that shares the map
        norms = zip(*(p.norms for p in parts))
        bits = zip(*(p.bits for p in parts))
        whole.append(
            CapturedMap(
                mean,
                quantized,
                [stitched(x, boxes, size) for x in norms],
                [stitched(x, boxes, size, spread) for x in bits],
                parts[0].anchors,
            )
        )
    return whole


def mean_over_levels(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> Tensor:
    """The mean map mu_a of the image ``index`` of a batch, averaged over
    levels, on the original image, whose metainfo this is."""
    levels = [map_on_image(m.mean[index, 0], metainfo) for m in maps]
    return torch.stack(levels).mean(0)


def bits_on_image(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> Tensor | None:
    """What the gates let through of each pixel of the original image, in
    bits, the sum over levels; None without an :class:`InformationGate`.

    A position's bits are spread evenly over the pixels of its cell, so that
    the sum over pixels is what passed of the image; what passed of its
    padding, which the model saw too, is left out. Arguments as of
    :func:`mean_over_levels`.
    """
    levels = [
        spread(bits[index, 0].cpu().double(), padded_size(metainfo))
        for captured in maps
        for bits in captured.bits
    ]
    if not levels:
        return None
    top, bottom, left, right = image_box(metainfo)
    seen = torch.stack(levels).sum(0)[top:bottom, left:right]
    return spread(seen, metainfo['ori_shape'][:2]).float()


def rectangles_on_image(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> list[Tensor | None]:
    """Corners of the rectangles that maps are, on the original image.

    Args:
        maps: of one batch.
        index: of the image in the batch.
        metainfo: of its data sample.

    Returns:
        for each map ``(4, 2)``, x and y in pixels, the first pixel from 0 to
        1, or None where the map has no such shape, as under a window that
        slides. A corner may lie outside.
    """
    top, bottom, left, right = image_box(metainfo)
    padded = torch.tensor(padded_size(metainfo))
    scale = torch.tensor(metainfo['ori_shape'][:2]) / torch.tensor(
        [bottom - top, right - left]
    )
    found: list[Tensor | None] = []
    for captured in maps:
        if captured.rectangles is None:
            found.append(None)
            continue
        corners = rectangle_corners(captured.rectangles[index].float().cpu())
        # rows and columns of a map lie in the middle of their cells
        grid = torch.tensor(captured.mean.shape[-2:])
        cells = torch.where(grid > 1, corners * (grid - 1), corners - 0.5)
        seen = (cells + 0.5) / grid * padded - torch.tensor([top, left])
        found.append((seen * scale).flip(-1))
    return found
