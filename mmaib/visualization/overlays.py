"""Pictures of attention beside what the model predicted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.visualization import Visualizer
from torch import Tensor

from mmaib.evaluation.map_geometry import (
    bits_on_image,
    map_on_image,
    mean_over_levels,
    rectangles_on_image,
)
from mmaib.layers import CapturedMap
from mmaib.layers.image_cells import image_box

# titles of panels
QUANTISED = 'quantised'
INFORMATION = 'information (bits a pixel)'


def finest_quantized(
    maps: Sequence[CapturedMap], index: int, metainfo: dict
) -> np.ndarray | None:
    """The quantised map of the finest level on the image; None without a
    quantiser. A mean over levels would not be quantised."""
    finest = max(maps, key=lambda m: m.mean[0].numel())
    if finest.quantized is None:
        return None
    quantized = finest.quantized[index, 0]
    return map_on_image(quantized, metainfo, 'nearest').numpy()


def draw_predictions(
    visualizer: Visualizer, image: np.ndarray, sample: Any, score_thr: float
) -> np.ndarray:
    """The base library's own drawing of a data sample, RGB; the image, if the
    config names no visualizer of the base library, which alone knows how."""
    if type(visualizer) is Visualizer:
        return image
    with tempfile.TemporaryDirectory() as folder:
        # an out_file keeps mmengine from sending it to the back ends
        out = str(Path(folder) / 'prediction.png')
        options: dict[str, Any] = dict(draw_gt=False, out_file=out)
        if is_classified(sample):
            if min(image.shape[:2]) < 224:
                options['resize'] = 224
            visualizer.visualize_cls(image, sample, **options)
        else:
            if 'pred_instances' in sample:
                options['pred_score_thr'] = score_thr
            visualizer.add_datasample(
                'prediction', image, data_sample=sample, **options
            )
        return mmcv.imread(out, channel_order='rgb')


def is_classified(sample: Any) -> bool:
    """Whether a data sample is mmpretrain's, with a class predicted."""
    return 'pred_score' in sample


def classifier_input(
    model: Any, images: Sequence[Tensor], sample: Any
) -> tuple[np.ndarray, Any]:
    """What a classifier saw of the first of a batch's images, ``(C, H, W)``
    each, uint8, from its pipeline: ``(H, W, 3)`` RGB, and its data sample with
    the shapes of that. The pipeline may crop, so the map does not lie on the
    original, which data sets of arrays do not have."""
    image, size = images[0], tuple(images[0].shape[1:])
    known = sample.metainfo
    if 'img_shape' in known:  # without what the pipeline padded
        top, bottom, left, right = image_box({**known, 'img_shape': size})
        image = image[:, top:bottom, left:right]
        size = tuple(image.shape[1:])
    # of other bands than a picture's: the first three, or one as gray
    image = image[:3] if len(image) > 2 else image[:1].expand(3, *size)
    if 'img_path' in sample:  # files load as BGR, arrays are RGB
        image = image.flip(0)
    # the preprocessor pads a batch to its largest image
    unit = getattr(model.data_preprocessor, 'pad_size_divisor', 1) or 1
    padded = [
        -(-max(other.shape[side] for other in images) // unit) * unit
        for side in (1, 2)
    ]
    sample = sample.clone()
    shapes = dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
    sample.set_metainfo({**shapes, 'batch_input_shape': tuple(padded)})
    return image.permute(1, 2, 0).cpu().numpy(), sample


def uncertainty_maps(sample: Any) -> dict[str, np.ndarray]:
    """What the samples of a segmentor give for each pixel, if they were asked
    to, ``(H, W)``."""
    found = {
        name: getattr(sample.get(name), 'data', None)
        for name in ('entropy', 'mutual_information')
    }
    return {
        name: value[0].float().cpu().numpy()
        for name, value in found.items()
        if isinstance(value, Tensor) and value.dim() == 3
    }


def attention_figure(
    panels: Mapping[str, np.ndarray], anchors: np.ndarray | None = None
) -> np.ndarray:
    """Pictures ``(H, W, 3)`` and maps ``(H, W)`` side by side, by their
    titles, as one RGB picture.

    Colour bars span each map's true range, which its title prints; that of
    the information has the sum too, that of the quantised map how many of the
    ``anchors``, lines on its bar, are in use.
    """
    height, width = next(iter(panels.values())).shape[:2]
    size = (3.6 * len(panels), 3.2 * height / width + 0.8)
    figure = Figure(figsize=size, dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for axis, (title, content) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        axis.set_axis_off()
        axis.set_title(title, fontsize=10)
        drawn = axis.imshow(content, cmap='viridis')
        if content.ndim == 3:
            continue
        low, high = float(content.min()), float(content.max())
        text = f'{title}\n[{low:.4f}, {high:.4f}]'
        if title == INFORMATION:
            text += f', {content.sum():.0f} in all'
        marks = anchors if title == QUANTISED else None
        if marks is not None:
            text += f', {len(np.unique(content))} of {len(marks)} anchors'
            drawn.set_clim(min(low, marks.min()), max(high, marks.max()))
        axis.set_title(text, fontsize=10)
        bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.02)
        if marks is not None:
            bar.ax.hlines(marks, 0, 1, color='white', linewidth=0.8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The map ``(H, W)`` in colours over the image ``(H, W, 3)``, RGB, uint8.
    Colours span its range, or 0.05 around it where that is less: a flat map
    looks flat."""
    low, high = float(attention.min()), float(attention.max())
    spare = max(0.05 - (high - low), 0) / 2
    scaled = (attention - low + spare) / (high - low + 2 * spare)
    colours = colormaps['viridis'](scaled)[..., :3] * 255
    grey = image.mean(-1, keepdims=True)
    return (0.45 * grey + 0.55 * colours).round().astype(np.uint8)


def outlined(
    image: np.ndarray,
    maps: Sequence[CapturedMap],
    index: int,
    metainfo: dict,
) -> np.ndarray:
    """The original image, ``(H, W, 3)`` RGB, uint8, with the outline of each
    rectangle that a map is, a colour a level, the first one's in front. The
    image itself without any."""
    levels = rectangles_on_image(maps, index, metainfo)
    drawn = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 150))
    for level, corners in reversed([*enumerate(levels)]):
        if corners is None:
            continue
        colour = colormaps['Set1'](level % 9)[:3]
        cv2.polylines(
            drawn,
            [corners.floor().int().numpy()],
            isClosed=True,
            color=[round(255 * part) for part in colour],
            thickness=width,
        )
    return drawn


def picture(
    visualizer: Visualizer,
    maps: Sequence[CapturedMap],
    image: np.ndarray,
    sample: Any,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Image, attention averaged over levels, quantised attention,
    information, predictions and their uncertainty side by side, of the first
    image of a batch that just ran; with the outlines of maps that are
    rectangles. The image is RGB, as loaded, the sample its own with
    predictions; detections below ``score_thr`` are not drawn.
    """
    place = 0, sample.metainfo
    panels = {'image': outlined(image, maps, *place)}
    anchors = None
    if maps:
        anchors = maps[0].anchors
        panels['attention'] = mean_over_levels(maps, *place).numpy()
        quantized = finest_quantized(maps, *place)
        if quantized is not None:
            panels[QUANTISED] = quantized
        bits = bits_on_image(maps, *place)
        if bits is not None:
            panels[INFORMATION] = bits.numpy()
    panels['predictions'] = draw_predictions(
        visualizer, image, sample, score_thr
    )
    for name, values in uncertainty_maps(sample).items():
        panels[f'{name.replace("_", " ")} (nats)'] = values
    return attention_figure(
        panels, None if anchors is None else anchors.float().cpu().numpy()
    )
