"""Pictures of attention beside what the model predicted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
)
from mmaib.layers import CapturedMap


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
    """The host's own drawing of a data sample, RGB."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / 'prediction.png')
        options: dict[str, Any] = {}
        if is_classified(sample):
            small = min(image.shape[:2]) < 224
            visualizer.visualize_cls(
                image,
                sample,
                draw_gt=False,
                resize=224 if small else None,
                out_file=out,
            )
            return mmcv.imread(out, channel_order='rgb')
        if 'pred_instances' in sample:
            options['pred_score_thr'] = score_thr
        # An out_file keeps the host from sending it to the back ends.
        visualizer.add_datasample(
            'prediction',
            image,
            data_sample=sample,
            draw_gt=False,
            out_file=out,
            **options,
        )
        return mmcv.imread(out, channel_order='rgb')


def is_classified(sample: Any) -> bool:
    """Whether a data sample is mmpretrain's, with a class predicted."""
    return 'pred_score' in sample


def classifier_input(
    model: Any, images: Sequence[Tensor], sample: Any
) -> tuple[np.ndarray, Any]:
    """What a classifier saw of the first image of a batch. Its pipeline may
    crop, so its map does not lie on the original, which data sets of arrays
    do not have.

    Args:
        model: the classifier.
        images: of the batch, ``(3, H, W)`` each, uint8, from its pipeline.
        sample: the first one's data sample.

    Returns:
        the image ``(H, W, 3)``, RGB, and a data sample with its shapes.
    """
    image, size = images[0], tuple(images[0].shape[1:])
    if 'img_path' in sample:  # files load as BGR, arrays are RGB
        image = image.flip(0)
    # the preprocessor pads a batch to its largest image
    unit = getattr(model.data_preprocessor, 'pad_size_divisor', 1) or 1
    padded = [
        -(-max(other.shape[side] for other in images) // unit) * unit
        for side in (1, 2)
    ]
    sample = sample.clone()
    sample.set_metainfo(
        dict(ori_shape=size, img_shape=size, batch_input_shape=tuple(padded))
    )
    return image.permute(1, 2, 0).cpu().numpy(), sample


def attention_figure(
    image: np.ndarray,
    attention: np.ndarray,
    quantized: np.ndarray | None,
    predictions: np.ndarray,
    bits: np.ndarray | None = None,
) -> np.ndarray:
    """Image, attention, quantised attention, information and predictions
    side by side.

    Args:
        image: ``(H, W, 3)`` RGB.
        attention: ``(H, W)``, the mean map, averaged over levels.
        quantized: ``(H, W)``, of the finest level, or None.
        predictions: ``(H, W, 3)`` RGB, the image with what was found.
        bits: ``(H, W)``, what an information gate lets through of each
            pixel, or None. Its title has the sum too.

    Returns:
        RGB picture; colour bars span each map's true range, which the
        titles print.
    """
    panels = [('image', image), ('attention', attention)]
    if quantized is not None:
        panels.append(('quantised', quantized))
    if bits is not None:
        panels.append(('information (bits a pixel)', bits))
    panels.append(('predictions', predictions))
    height = 3.2 * image.shape[0] / image.shape[1]
    size = (3.6 * len(panels), height + 0.8)
    figure = Figure(figsize=size, dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for axis, (title, content) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels
    ):
        axis.set_axis_off()
        if content.ndim == 3:
            axis.imshow(content)
            axis.set_title(title, fontsize=10)
            continue
        drawn = axis.imshow(content, cmap='viridis')
        low, high = float(content.min()), float(content.max())
        text = f'{title}\n[{low:.4f}, {high:.4f}]'
        if content is bits:
            text += f', {content.sum():.0f} in all'
        axis.set_title(text, fontsize=10)
        figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.02)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The map in colours over the image.

    Args:
        image: ``(H, W, 3)`` RGB.
        attention: ``(H, W)``. Colours span its range, or 0.05 around it
            where that is less: a flat map looks flat.

    Returns:
        ``(H, W, 3)`` RGB, uint8.
    """
    low, high = float(attention.min()), float(attention.max())
    spare = max(0.05 - (high - low), 0) / 2
    scaled = (attention - low + spare) / (high - low + 2 * spare)
    colours = colormaps['viridis'](scaled)[..., :3] * 255
    grey = image.mean(-1, keepdims=True)
    return (0.45 * grey + 0.55 * colours).round().astype(np.uint8)


def picture(
    visualizer: Visualizer,
    maps: Sequence[CapturedMap],
    image: np.ndarray,
    sample: Any,
    index: int = 0,
    score_thr: float = 0.3,
) -> np.ndarray:
    """:func:`attention_figure` of one image of a batch that just ran.

    Args:
        visualizer: the host's.
        maps: what :func:`capture_attention` recorded.
        image: ``(H, W, 3)`` RGB, as loaded.
        sample: its data sample with predictions.
        index: its place in the batch.
        score_thr: detections below are not drawn.

    Raises:
        ValueError: if the model has no attention.
    """
    if not maps:
        raise ValueError(
            'the model has no AttentiveBottleneck, so there is no map to draw'
        )
    bits = bits_on_image(maps, index, sample.metainfo)
    return attention_figure(
        image,
        mean_over_levels(maps, index, sample.metainfo).numpy(),
        finest_quantized(maps, index, sample.metainfo),
        draw_predictions(visualizer, image, sample, score_thr),
        None if bits is None else bits.numpy(),
    )
