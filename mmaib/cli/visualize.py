"""Draw the attention maps of images.

    mmaib visualize CONFIG CHECKPOINT IMAGES --out DIR

IMAGES is an image or a folder; without it the test images of CONFIG are drawn
in their order, beside their ground truth. For each image DIR gets NAME.png
(image, attention, quantised attention, information, predictions),
NAME.level0.npy ... with the raw mean map of each level and, after a
quantiser, NAME.level0.quantized.npy. An information gate adds NAME.bits.npy,
the bits that pass of each pixel as the picture has them, all levels together:
their sum is the image's. Of a segmentor that slides a window over the image,
the raw maps are those of the whole image, in pixels of the resized image. A
classifier's maps are drawn on what it saw.

Rectangles (mmaib.RectangularAttention) are outlined on the image and on the
overlay, a colour a level.

NAME.overlay.jpg is the map over the image, and scores.json says of each image
what `mmaib.AttentionMetric` says of all, and how well the base model's answer
fits the ground truth. `mmaib report` makes a gallery of them if DIR lies in
the work dir.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Container
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import VISUALIZERS
from mmengine.utils import track_iter_progress
from mmengine.visualization import Visualizer

from mmaib.evaluation import AttentionMetric
from mmaib.evaluation.agreement import to_truth
from mmaib.evaluation.map_geometry import (
    bits_on_image,
    mean_over_levels,
    whole_maps,
)
from mmaib.files import check_empty
from mmaib.layers import AttentiveBottleneck, capture_attention
from mmaib.models import known
from mmaib.registry import type_name
from mmaib.sampling.draws import Draws
from mmaib.visualization.image_sources import (
    Images,
    as_loaded,
    of_files,
    of_test_set,
    test_pipeline,
)
from mmaib.visualization.overlays import (
    classifier_input,
    is_classified,
    outlined,
    overlay,
    picture,
    uncertainty_maps,
)
from mmaib.visualization.work_dirs import SCORES_FILE, read_json

from .launch import device_of
from .loading import load_model, read_config


def visualizer_of(model: Any) -> Visualizer:
    """The base library's, of a loaded model."""
    kind = known.VISUALIZERS.get(model.cfg.default_scope, 'Visualizer')
    config = model.cfg.get('visualizer') or dict(type=kind)
    found = VISUALIZERS.build(
        {**config, 'name': 'attention', 'vis_backends': None}
    )
    found.dataset_meta = model.dataset_meta
    return found


def metric_of(cfg: Config) -> AttentionMetric:
    """With the fields that the config's AttentionEvalHook gives it."""
    hooks = [*cfg.get('default_hooks', {}).values()]
    for hook in [*hooks, *cfg.get('custom_hooks', [])]:
        if hook and type_name(hook['type']) == 'mmaib.AttentionEvalHook':
            return AttentionMetric(**hook.get('metric') or {})
    return AttentionMetric()


@torch.no_grad()
def draw(
    model: Any,
    visualizer: Visualizer,
    metric: AttentionMetric,
    pipeline: Compose,
    path: str,
    data: Any,
    name: Path,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Write the picture of all panels, the overlay and the raw maps of one
    image; its scores."""
    data = pseudo_collate([data])
    with capture_attention(model) as captured_maps:
        sample = model.test_step(data)[0].cpu()
    maps = whole_maps(model, captured_maps, sample.metainfo)
    if is_classified(sample):
        image, sample = classifier_input(model, data['inputs'], sample)
    else:
        image = as_loaded(pipeline, path)
    drawn = picture(visualizer, maps, image, sample, args.score_thr)
    mmcv.imwrite(drawn[..., ::-1], f'{name}.png')
    known = {**sample.metainfo, **sample.to_dict()}
    scores = to_truth(known, args.score_thr)
    if maps:
        scores.update(metric.scores(maps, 0, known))
        attention = mean_over_levels(maps, 0, sample.metainfo).numpy()
        mixed = outlined(overlay(image, attention), maps, 0, sample.metainfo)
        mmcv.imwrite(mixed[..., ::-1], f'{name}.overlay.jpg')
    bits = bits_on_image(maps, 0, sample.metainfo)
    if bits is not None:
        np.save(f'{name}.bits.npy', bits.numpy())
    for field, values in uncertainty_maps(sample).items():
        np.save(f'{name}.{field}.npy', values)
    for level, captured in enumerate(maps):
        stem = f'{name}.level{level}'
        np.save(f'{stem}.npy', captured.mean[0, 0].cpu().numpy())
        if captured.quantized is not None:
            quantized = captured.quantized[0, 0].cpu().numpy()
            np.save(f'{stem}.quantized.npy', quantized)
    return scores


def unused(name: str, names: Container[str]) -> str:
    """The name, with a number if it stands already."""
    numbered = (f'{name}_{i}' for i in count(2))
    return next(n for n in chain([name], numbered) if n not in names)


def draw_all(model: Any, source: Images, args: argparse.Namespace) -> None:
    """Every image, and their scores."""
    visualizer, metric = visualizer_of(model), metric_of(model.cfg)
    pipeline = test_pipeline(model.cfg)
    number = min(source[0], args.max_images or source[0])
    args.out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, dict[str, float]] = {}
    content = dict(config=str(args.config), checkpoint=str(args.checkpoint))
    file = args.out / SCORES_FILE
    file.write_text(json.dumps({**content, 'images': {}}))  # of this command
    found = islice(source[1], number)
    for path, data in track_iter_progress((found, number)):
        name = Path(path).stem
        if name in scores:  # of another folder
            name = f'{Path(path).parent.name}_{name}'
        name = unused(name, scores)
        scores[name] = draw(
            model, visualizer, metric, pipeline, path, data, args.out / name,
            args,
        )  # fmt: skip
    file.write_text(json.dumps({**content, 'images': scores}, indent=1))
    print(f'\n{len(scores)} pictures in {args.out}')


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Build and load the model; what is left to do is to draw."""
    begun = 'images' in read_json(args.out / SCORES_FILE)
    check_empty('--out', args.out, begun)
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, device_of(args.device))
    maps = any(isinstance(m, AttentiveBottleneck) for m in model.modules())
    if not maps and not getattr(model, 'test_draws', Draws()).uncertainty:
        raise ValueError(
            f'{args.config}: the model has neither maps nor uncertainty'
        )
    source = (
        of_test_set(cfg)
        if not args.images
        else of_files(test_pipeline(cfg), args.images)
    )
    return partial(draw_all, model, source, args)
