"""Which cells of a grid are an image's own, and which are padding.

A batch is as large as its largest image, and a pipeline may pad before that.
The model opens :func:`image_cells` around its forward; the layers inside ask
for the share of each cell that is image (:func:`own_cells`), so that padding
counts in no statistic, loss or change of a map. Where nothing is padded there
is no such share, and everything is as without this file, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaib.contexts import ContextStack
from mmaib.functional import split_levels
from mmaib.sampling.draws import current

Window = tuple[slice, slice]


class Box(NamedTuple):
    """Pixels of the model's input, the first row and column from 0, the last
    ones not in it."""

    top: int
    bottom: int
    left: int
    right: int

    def within(self, window: Window) -> Box:
        """The part in a window, from its corner; all of the window if there
        is none."""
        rows, columns = window
        height, width = rows.stop - rows.start, columns.stop - columns.start
        top, bottom = (y - rows.start for y in self[:2])
        left, right = (x - columns.start for x in self[2:])
        inside = Box(
            max(top, 0), min(bottom, height), max(left, 0), min(right, width)
        )
        if inside.bottom <= inside.top or inside.right <= inside.left:
            return Box(0, height, 0, width)
        return inside


class _Open(NamedTuple):
    """Where the images of one batch lie; without boxes nothing is padded."""

    boxes: tuple[Box, ...]
    size: tuple[int, int]
    cells: dict  # what own_cells gave, by grid, rows and device
    windows: Iterator[Window] | None = None


_opened: ContextStack[_Open] = ContextStack('image_cells')


def padded_size(metainfo: Mapping) -> tuple[int, int]:
    """Height and width of what went through the model."""
    padded = metainfo.get('pad_shape', metainfo['img_shape'])
    return tuple(metainfo.get('batch_input_shape', padded)[:2])


def image_box(metainfo: Mapping, training: bool = False) -> Box:
    """Where the image itself lies in what went through the model.

    Of a test pipeline ``ori_shape`` times ``scale_factor``, as ``Pad`` sets
    ``img_shape`` to the padded size; or the ``border`` that CenterNet's and
    CornerNet's pipelines leave. A training pipeline may have cut and joined
    images, of which ``img_shape`` alone is certain.

    Args:
        metainfo: of the data sample.
        training: whether it comes from a training pipeline.

    Example:
        >>> image_box(dict(ori_shape=(30, 40), img_shape=(64, 64),
        ...                scale_factor=(1.6, 1.6)))
        Box(top=0, bottom=48, left=0, right=64)
    """
    height, width = metainfo['img_shape'][:2]
    if training:
        return Box(0, height, 0, width)
    border = metainfo.get('border')
    if border is not None and border[0] < border[1] and border[2] < border[3]:
        return Box(*map(int, border))
    if {'scale_factor', 'ori_shape'} <= metainfo.keys() and not _stretched(
        metainfo
    ):
        x, y = metainfo['scale_factor'][:2]
        scaled = [s * f for s, f in zip(metainfo['ori_shape'], (y, x))]
        height, width = (
            max(min(side, round(float(seen))), 1)
            for side, seen in zip((height, width), scaled)
        )
    return Box(0, height, 0, width)


def _stretched(metainfo: Mapping) -> bool:
    """Whether mmseg's ``ResizeToMultiple`` ran, which scales the image once
    more than ``scale_factor`` knows: it leaves a ``pad_shape`` of two numbers
    where ``Pad`` leaves three, and preprocessors' come with more."""
    padded = metainfo.get('pad_shape') or ()
    later = {'batch_input_shape', 'img_padding_size'} & metainfo.keys()
    return len(padded) == 2 and not later


def covered(first: Any, last: Any, side: int, cells: int) -> Tensor:
    """The share of each cell along a side that is in [first, last), numbers
    or tensors ``(N, 1)`` of several."""
    edges = torch.arange(cells + 1).double() * side / cells
    inside = edges[1:].clamp(max=last) - edges[:-1].clamp(min=first)
    return (inside * cells / side).clamp(0, 1)


def cell_shares(
    box: Box, size: Sequence[int], grid: Sequence[int]
) -> Tensor | None:
    """The share of each cell that is image, ``(H, W)``; None where the image
    fills the input.

    Args:
        box: of the image.
        size: height and width of the input.
        grid: of the cells.

    Example:
        >>> cell_shares(Box(0, 8, 0, 10), (8, 16), (1, 4))
        tensor([[1.0000, 1.0000, 0.5000, 0.0000]])
    """
    if box == (0, size[0], 0, size[1]):
        return None
    rows = covered(box.top, box.bottom, size[0], grid[0])
    columns = covered(box.left, box.right, size[1], grid[1])
    return (rows[:, None] * columns).float()


def cell_window(box: Box, size: Sequence[int], grid: Sequence[int]) -> Window:
    """The cells whose centre is in the image, one at least along each side.

    Args:
        box: of the image.
        size: height and width of the input.
        grid: of the cells.
    """
    spans = []
    for (first, last), side, cells in zip(
        (box[:2], box[2:]), size, grid, strict=True
    ):
        start = int(first * cells / side + 0.5)
        stop = int(last * cells / side + 0.5)
        if stop <= start:
            start = min(first * cells // side, cells - 1)
            stop = start + 1
        spans.append(slice(start, stop))
    return spans[0], spans[1]


@contextmanager
def image_cells(
    inputs: Any,
    data_samples: Any,
    training: bool,
    windows: Sequence[Window] | None = None,
) -> Iterator[None]:
    """Let the layers inside the ``with`` know which cells are an image's own.

    Args:
        inputs: of the model, ``(N, C, H, W)``; anything else is without
            padding.
        data_samples: one an image, with ``img_shape`` in their metainfo.
        training: see :func:`image_box`.
        windows: that will be slid over the images, see :func:`next_window`.
    """
    batch = _of_batch(inputs, data_samples, training, windows)
    with _opened.open(batch):
        yield


def _of_batch(
    inputs: Any,
    data_samples: Any,
    training: bool,
    windows: Sequence[Window] | None,
) -> _Open:
    unpadded = _Open((), (0, 0), {})
    if not (
        isinstance(inputs, Tensor)
        and inputs.dim() == 4
        and isinstance(data_samples, list | tuple)
        and len(data_samples) == len(inputs)
    ):
        return unpadded
    height, width = map(int, inputs.shape[2:])
    whole = (slice(0, height), slice(0, width))
    boxes = []
    for sample in data_samples:
        metainfo = getattr(sample, 'metainfo', {})
        box = Box(0, height, 0, width)
        if 'img_shape' in metainfo:
            box = image_box(metainfo, training).within(whole)
        boxes.append(box)
    if {*boxes} == {(0, height, 0, width)}:
        return unpadded
    slid = None if windows is None else iter(windows)
    return _Open(tuple(boxes), (height, width), {}, slid)


@contextmanager
def next_window() -> Iterator[None]:
    """What goes through the model inside the ``with`` is the next of the
    windows that are slid over the images; without any, the images."""
    found = _opened.innermost()
    if found is None or found.windows is None:
        yield
        return
    rows, columns = next(found.windows)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    boxes = tuple(box.within((rows, columns)) for box in found.boxes)
    with _opened.open(_Open(boxes, size, {})):
        yield


def _open_for(x: Tensor) -> _Open | None:
    """What is open for features of the images, or of their draws, with a box
    for each row; None without padding, and of other features, such as those
    of RoIs."""
    found = _opened.innermost()
    if found is None or not found.boxes:
        return None
    if found.windows is not None or x.dim() != 4:
        return None
    drawn = current()
    maps, latents = drawn.attention or 1, drawn.latent or 1
    copies, rest = divmod(len(x), len(found.boxes))
    if rest or copies not in (1, maps, latents, maps * latents):
        return None
    return found._replace(boxes=found.boxes * copies)


def own_cells(x: Tensor) -> Tensor | None:
    """The share of each cell of features that is image.

    Args:
        x: ``(N, C, H, W)``, or ``(L * N, C, H, W)`` draw by draw.

    Returns:
        ``(len(x), 1, H, W)``, or None without padding.

    Example:
        >>> x = torch.rand(1, 8, 4, 4)
        >>> own_cells(x) is None
        True
    """
    found = _open_for(x)
    if found is None:
        return None
    grid = (x.size(2), x.size(3))
    key = (grid, len(x), x.device)
    if key not in found.cells:
        whole = torch.ones(*grid)
        shares = [cell_shares(box, found.size, grid) for box in found.boxes]
        each = [whole if share is None else share for share in shares]
        found.cells[key] = torch.stack(each)[:, None].to(x.device)
    return found.cells[key]


def own_mean(values: Tensor, cells: Tensor | None) -> Tensor:
    """The mean over all that counts.

    Args:
        values: ``(N, C, H, W)``.
        cells: of :func:`own_cells`.
    """
    if cells is None:
        return values.mean()
    return (values * cells).sum() / (cells.sum() * values.size(1))


def own_level_mean(values: Tensor, grids: Sequence[Sequence[int]]) -> Tensor:
    """The mean over levels of the mean over all that counts of each.

    Args:
        values: ``(N, 1, 1, T)``, of maps side by side, or of a single one.
        grids: of the levels, see :func:`mmaib.functional.split_levels`.
    """
    levels = split_levels(values, grids)
    means = [own_mean(x, own_cells(x)) for x in levels]
    return means[0] if len(means) == 1 else torch.stack(means).mean()


def own_position_mean(values: Tensor, cells: Tensor | None) -> Tensor:
    """The mean over the positions that count, ``(..., 1, 1)``.

    Args:
        values: ``(..., H, W)``.
        cells: of :func:`own_cells`, or anything that broadcasts.
    """
    if cells is None:
        return values.mean((-2, -1), keepdim=True)
    total = cells.sum((-2, -1), keepdim=True)
    return (values * cells).sum((-2, -1), keepdim=True) / total


def changed_cells(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A map changed within each image's own cells; padding keeps its scores.

    Args:
        x: ``(N, 1, H, W)``.
        change: of maps of any grid, keeping it.
    """
    found = _open_for(x)
    if found is None:
        return change(x)
    out = x.clone()
    for row, box in enumerate(found.boxes):
        rows, columns = cell_window(box, found.size, x.shape[2:])
        own = x[row : row + 1, :, rows, columns]
        out[row : row + 1, :, rows, columns] = change(own)
    return out


def note_input_sizes(_: Any, args: tuple, out: Any) -> None:
    """A forward hook of a data preprocessor: where it pads a batch and does
    not say so, as mmpretrain's, say so in the samples."""
    data = args[0] if args else None
    if not (isinstance(data, dict) and isinstance(out, dict)):
        return
    inputs, samples = out.get('inputs'), out.get('data_samples')
    images = data.get('inputs')
    if not isinstance(inputs, Tensor) or not isinstance(samples, list):
        return
    if images is None or len(images) != len(samples):
        return
    for image, sample in zip(images, samples):
        # mmdet's and mmseg's say it by that
        if 'pad_shape' not in getattr(sample, 'metainfo', ('pad_shape',)):
            sample.set_metainfo(
                dict(
                    img_shape=tuple(image.shape[-2:]),
                    batch_input_shape=tuple(inputs.shape[-2:]),
                )
            )
