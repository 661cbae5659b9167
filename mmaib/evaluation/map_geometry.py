"""Where attention maps lie on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmaib.layers import CapturedMap
from mmaib.layers.aib_neck import resize


def padded_size(metainfo: dict) -> tuple[int, int]:
    """Height and width of what went through the model."""
    padded = metainfo.get('pad_shape', metainfo['img_shape'])
    return tuple(metainfo.get('batch_input_shape', padded)[:2])


def map_on_image(
    attention: Tensor, metainfo: dict, mode: str = 'bilinear'
) -> Tensor:
    """Resize a map to the original image.

    The map covers the padded batch; the padding is cut off before the image
    is scaled back.

    Args:
        attention: ``(H, W)``.
        metainfo: of the data sample: ``ori_shape``, ``img_shape`` and, if
            the batch was padded, mmdet's ``batch_input_shape`` or mmseg's
            ``pad_shape``.
        mode: of ``torch.nn.functional.interpolate``.

    Returns:
        ``ori_shape``, on the CPU.
    """
    height, width = metainfo['img_shape'][:2]
    full = attention[None, None].float().cpu()
    full = resize(full, padded_size(metainfo), mode)
    full = full[..., :height, :width]
    return resize(full, metainfo['ori_shape'][:2], mode)[0, 0]


def windows(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """Rows and columns of mmseg's sliding windows, in its order.

    Args:
        size: height and width of the image.
        crop: of a window.
        stride: between windows.
    """
    spans = []
    for length, side, step in zip(size, crop, stride):
        count = max(length - side + step - 1, 0) // step + 1
        ends = [min(i * step + side, length) for i in range(count)]
        spans.append([slice(max(end - side, 0), end) for end in ends])
    return [(rows, columns) for rows in spans[0] for columns in spans[1]]


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
        window's.
    """
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') != 'slide':
        return maps
    size = padded_size(metainfo)
    boxes = windows(size, test_cfg['crop_size'], test_cfg['stride'])
    per_window = len(maps) // len(boxes)
    stitched = []
    for level in range(per_window):
        parts = maps[level::per_window]
        mean = parts[0].mean.new_zeros(*parts[0].mean.shape[:2], *size)
        count, quantized = torch.zeros_like(mean), None
        if parts[0].quantized is not None:
            quantized = torch.zeros_like(mean)
        for part, (rows, columns) in zip(parts, boxes):
            box = (rows.stop - rows.start, columns.stop - columns.start)
            mean[..., rows, columns] += resize(part.mean, box)
            count[..., rows, columns] += 1
            if quantized is not None and part.quantized is not None:
                quantized[..., rows, columns] = resize(
                    part.quantized, box, 'nearest'
                )
        stitched.append(
            CapturedMap(parts[0].name, level, mean / count, quantized)
        )
    return stitched


def mean_over_levels(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> Tensor:
    """The mean map mu_a on the image, averaged over levels.

    Args:
        maps: of one batch.
        index: of the image in the batch.
        metainfo: of its data sample.
    """
    levels = [map_on_image(m.mean[index, 0], metainfo) for m in maps]
    return torch.stack(levels).mean(0)
