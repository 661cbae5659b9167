"""Explanations of a model's statements about one image."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor

from mmaib.evaluation.map_geometry import of_the_image, spread
from mmaib.functional import scaled
from mmaib.visualization.image_sources import (
    load,
    load_array,
    loads_files,
    test_pipeline,
)

from .bottleneck import Settings, Statistics, per_sample_bottleneck
from .detections import detections, missed
from .image_class import image_class
from .places import Features, Place, statistics
from .regions import regions
from .targets import Target, label_of

# a thread explains while others wait: models are frozen and hooked meanwhile
_LOCK = RLock()


@dataclass(frozen=True)
class Prepared:
    """An image as a model receives it.

    Attributes:
        images: ``(1, 3, H, W)``, preprocessed.
        sample: its data sample.
        features: of the place where they are gated.
        received: what the head receives.
    """

    images: Tensor
    sample: Any
    features: Features
    received: Any


@dataclass(frozen=True)
class Explanation:
    """What one statement rests on.

    Attributes:
        name, label, score: of the statement: its class and probability.
        box: x1, y1, x2, y2 of a detection, or x, y, width, height and angle
            of a rotated one, in pixels of the original image.
        bits: ``(H, W)`` of the original image: the bits that pass of each
            pixel, all levels together; 0 of what a centre crop leaves out.
            Their sum is what the statement needs; of a missed object, what
            must be shut.
        kept, without, mirrored: the probability where only that passes, where
            all else passes, and where it passes elsewhere
            (:class:`~mmaib.explanations.bottleneck.BottleneckResult`).
        seconds: of the optimisation.
    """

    name: str
    label: int
    score: float
    box: tuple[float, ...] | None
    bits: np.ndarray
    kept: float
    without: float
    mirrored: float | None
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Everything but the map, for JSON."""
        return {**vars(self), 'bits': float(self.bits.sum())}


def task_of(model: Any) -> str:
    """``'detector'``, ``'segmentor'`` or ``'classifier'``.

    Raises:
        ValueError: if it is neither.
    """
    if hasattr(model, 'decode_head'):
        return 'segmentor'
    if any(
        hasattr(model, head)
        for head in ('roi_head', 'bbox_head', 'bbox_head_refine')
    ):
        return 'detector'
    if hasattr(model, 'head') and hasattr(model, 'extract_feat'):
        return 'classifier'
    inside = [
        f'model.{name}'
        for name, part in model.named_children()
        if hasattr(part, 'extract_feat')
    ]
    raise ValueError(
        f'{type(model).__name__} is neither a detector, a segmentor nor a '
        'classifier of the MM libraries'
        + (f': explain {" or ".join(inside)}' if inside else '')
    )


def default_place(model: Any) -> str:
    """The neck; of a classifier, whose neck pools, the backbone."""
    return 'backbone' if task_of(model) == 'classifier' else 'neck'


def data_of(model: Any, image: str | Path | np.ndarray) -> Any:
    """An image, a file or an array (H, W, 3) in BGR, through the test
    pipeline of the model's config (``model.cfg``).

    Raises:
        ValueError: if there is no config, or the array has other dimensions
            than a model of three channels takes.
        TypeError: if it is neither.
        FileNotFoundError: if there is no such file.
    """
    if not _config_of(model):
        raise ValueError(
            'model.cfg is missing, the config whose test pipeline loads '
            'images: load the model by mmdet.apis.init_detector or its like, '
            'or set model.cfg = Config.fromfile(...)'
        )
    pipeline = pipeline_of(model)
    if isinstance(image, np.ndarray):
        data = _of_array(pipeline, image, model.data_preprocessor)
    elif not isinstance(image, str | Path):
        raise TypeError(
            f'image: one file or array (H, W, 3), got {type(image).__name__}'
        )
    elif not Path(image).is_file():
        raise FileNotFoundError(f'no file {image}')
    else:
        data = load(pipeline, Path(image))
    sample = data['data_samples']
    sample.set_metainfo(dict(seen=_seen(pipeline, sample.metainfo)))
    return data


def _of_array(pipeline: Compose, image: np.ndarray, preprocessor: Any) -> Any:
    mean = getattr(preprocessor, 'mean', None)
    in_colour = mean is not None and mean.numel() == 3
    if in_colour and (image.ndim != 3 or image.shape[2] != 3):
        raise ValueError(
            f'image: an array (H, W, 3), got one of shape {image.shape}'
        )
    if in_colour and not any(map(loads_files, pipeline.transforms)):
        # of data sets of arrays, which are RGB
        image = np.ascontiguousarray(image[..., ::-1])
    return load_array(pipeline, image)


def _config_of(model: Any) -> Any:
    """What the base libraries' own functions leave; mmpretrain's get_model
    names it otherwise."""
    return getattr(model, 'cfg', None) or getattr(model, '_config', None)


def pipeline_of(model: Any) -> Compose:
    """In the model's own library, whichever was used last."""
    cfg = _config_of(model)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return test_pipeline(cfg)


@torch.no_grad()
def see(model: Any, place: Place, data: Any) -> Prepared:
    """Preprocess an image and pass it to the head."""
    batch = model.data_preprocessor(pseudo_collate([data]), False)
    images, sample = batch['inputs'], batch['data_samples'][0]
    if isinstance(images, (list, tuple)):
        images = torch.stack(images)
    if 'batch_input_shape' not in sample:
        sample.set_metainfo(dict(batch_input_shape=tuple(images.shape[2:])))
    features = place.features(images)
    return Prepared(images, sample, features, place.to_head(features, images))


def targets(
    model: Any,
    seen: Prepared,
    detection: int | None = None,
    class_name: str | None = None,
    against: str | None = None,
    missed_box: Sequence[float] | None = None,
    point: tuple[float, float] | None = None,
    score_thr: float = 0.3,
    at_most: int = 20,
) -> list[Target]:
    """What is asked for, see :func:`explain`; boxes and points in pixels of
    the original image."""
    task = task_of(model)
    label = None if class_name is None else label_of(model, class_name)
    asked = dict(
        detection=detection, missed=missed_box, point=point, against=against
    )
    fits = {
        'detector': ('detection', 'missed'),
        'segmentor': ('point',),
        'classifier': ('against',),
    }[task]
    for name, value in asked.items():
        if value is not None and name not in fits:
            raise ValueError(
                f'--{name}: {type(model).__name__} is a {task}, which takes '
                f'--class and {" or ".join(f"--{f}" for f in fits)}'
            )
    received, sample = seen.received, seen.sample
    if task == 'classifier':
        other = None if against is None else label_of(model, against)
        return [image_class(model, received, label, other)]
    scale = _scale(sample)
    if task == 'segmentor':
        if point is not None:
            point = (point[0] * scale[0], point[1] * scale[1])
        return regions(model, received, sample, label, point, at_most)
    if missed_box is not None:
        if label is None:
            raise ValueError('--missed needs --as NAME, the class')
        box = scaled(seen.images.new_tensor(missed_box), *scale)
        return [missed(model, received, sample, box, label)]
    if detection is not None:
        at_most = max(at_most, detection + 1)
    found = detections(model, received, sample, score_thr, label, at_most)
    if detection is None:
        return found
    if not 0 <= detection < len(found):
        raise ValueError(
            f'--detection {detection}: there are {len(found)} of a score of '
            f'at least {score_thr:g}, 0 to {len(found) - 1}'
        )
    return [found[detection]]


def explain(
    model: Any,
    image: str | Path | np.ndarray,
    *,
    at: str | None = None,
    others: Iterable[str | Path | np.ndarray] = (),
    moments: Statistics | None = None,
    settings: Settings | None = None,
    **asked: Any,
) -> list[Explanation]:
    """What a trained model's statements about an image rest on.

    For each statement an information gate over the frozen model's features
    is optimised to let through as few bits as its score needs.

    Args:
        model: of MMDetection, MMSegmentation or MMPretrain, with ``cfg``, as
            ``mmdet.apis.init_detector`` and its like return it.
        image: a file, or an array (H, W, 3) in BGR.
        at: where the gate is: ``'neck'``, ``'backbone'``, or a module's
            name; by default the neck, of a classifier the backbone.
        others: images that the features' statistics are taken from besides
            this one; a few dozen are enough.
        moments: those statistics, if there are some already.
        settings: of the optimisation.
        **asked: which statement. Of a detector ``detection=K``, the Kth by
            score, ``class_name='cat'``, or ``missed_box=(x1, y1, x2, y2)``
            with ``class_name``: what speaks against an object there; all
            detections of at least ``score_thr=0.3`` by default,
            ``at_most=20``. Of a segmentor ``point=(x, y)`` or
            ``class_name``. Of a classifier ``class_name`` and
            ``against='dog'``: why not that. Pixels of the original image.

    Returns:
        list[Explanation]: one for each statement.

    Raises:
        ValueError: if there is no such statement, or it cannot be traced to
            the features.
        TypeError: if ``others`` is one path.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(others, str | Path):
        raise TypeError(f'others: a list of images, got {others!r}')
    place = Place(model, at or default_place(model))
    with frozen(model):
        seen = see(model, place, data_of(model, image))
        if moments is None:
            batches = [
                see(model, place, data_of(model, o)).images for o in others
            ]
            moments = statistics(place, [seen.images, *batches])
        return [
            explanation_of(
                target,
                place,
                seen,
                moments,
                settings,
                missed=asked.get('missed_box') is not None,
            )
            for target in targets(model, seen, **asked)
        ]


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No parameter asks for a gradient, and the model evaluates, inside the
    block, in which one thread is at a time."""
    with _LOCK, torch.inference_mode(False):
        modes = [(module, module.training) for module in model.modules()]
        asked = [p for p in model.parameters() if p.requires_grad]
        model.eval()
        for parameter in asked:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter in asked:
                parameter.requires_grad_(True)


def explanation_of(
    target: Target,
    place: Place,
    seen: Prepared,
    moments: Statistics,
    settings: Settings | None = None,
    missed: bool = False,
) -> Explanation:
    """One statement's explanation, on the original image."""
    begun = time.perf_counter()
    found = per_sample_bottleneck(
        target, place, seen.features, seen.images, moments, settings,
        missed=missed,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    meta = seen.sample.metainfo
    # what passes of padding is left out
    passed = of_the_image(found.bits, meta).double()
    bits = passed.new_zeros(meta['ori_shape'][:2])
    seen_part = bits[meta.get('seen', ...)]
    seen_part += spread(passed, seen_part.shape)
    box = None
    if target.box is not None:
        x, y = _scale(seen.sample)
        box = tuple(scaled(target.box, 1 / x, 1 / y).tolist())
    return Explanation(
        target.name,
        target.label,
        target.score,
        box,
        bits.float().numpy(),
        found.kept,
        found.without,
        found.mirrored,
        seconds,
    )


def _seen(pipeline: Compose, meta: dict) -> tuple[slice, slice]:
    """Rows and columns of the original image that are left of it: all, or of
    pipelines that crop (classifiers') the centre."""
    whole = meta['ori_shape'][:2]
    kept: Iterable[float] = whole
    for step in pipeline.transforms:
        kind = type(step).__name__
        if kind == 'EfficientNetCenterCrop':
            share = step.crop_size / (step.crop_size + step.crop_padding)
            kept = [min(whole) * share] * 2
        elif kind == 'CenterCrop':
            x, y = meta.get('scale_factor', (1, 1))
            kept = meta['img_shape'][0] / y, meta['img_shape'][1] / x
    spans = []
    for side, part in zip(whole, kept):
        length = max(min(round(part), side), 1)
        first = (side - length) // 2
        spans.append(slice(first, first + length))
    return spans[0], spans[1]


def _scale(sample: Any) -> tuple[float, float]:
    """Width and height of the model's image over the original one's."""
    meta = sample.metainfo
    factor = meta.get('scale_factor')
    if factor is None:
        (height, width), (rows, columns) = (
            meta['img_shape'][:2],
            meta['ori_shape'][:2],
        )
        factor = width / columns, height / rows
    return float(factor[0]), float(factor[1])
