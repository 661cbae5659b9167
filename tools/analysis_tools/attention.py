"""Draw the attention maps of images.

    python tools/analysis_tools/attention.py CONFIG CHECKPOINT IMAGES --out DIR

IMAGES is an image or a folder; without it the test images of CONFIG are drawn
in their order, beside their ground truth. For each image DIR gets NAME.png
(image, attention, quantised attention, information, predictions),
NAME.level0.npy ... with the raw mean map of each level and, behind a
quantiser, NAME.level0.quantized.npy. An information gate adds NAME.bits.npy,
the bits that pass of each pixel as the picture has them, all levels together:
their sum is the image's. Of a segmentor that slides a window over the image,
the raw maps are those of the whole image, in pixels of the resized image. A
classifier's maps are drawn on what it saw.

NAME.overlay.jpg is the map over the image, and scores.json says of each image
what `mmaib.AttentionMetric` says of all, and how well the host's answer fits
the ground truth. `tools/analysis_tools/report.py` makes a gallery of them if
DIR lies in the work dir.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import (
    DATASETS,
    MODELS,
    VISUALIZERS,
    init_default_scope,
)
from mmengine.runner import load_checkpoint
from mmengine.utils import track_iter_progress
from mmengine.visualization import Visualizer

from mmaib import compat
from mmaib.evaluation import AttentionMetric
from mmaib.evaluation.agreement import to_truth
from mmaib.evaluation.map_geometry import (
    bits_on_image,
    mean_over_levels,
    whole_maps,
)
from mmaib.hooks.visualization import (
    classifier_input,
    is_classified,
    overlay,
    picture,
)
from mmaib.layers import capture_attention
from mmaib.reliability.launch import device_argument
from mmaib.reliability.preflight import check_checkpoint

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')


def load(
    cfg: Config, checkpoint: str, device: torch.device
) -> tuple[Any, Visualizer]:
    """Model in evaluation mode, and the host's visualizer."""
    init_default_scope(cfg.default_scope)
    # as the Runner does; mmpretrain's configs have it beside the model
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    check_checkpoint('checkpoint', checkpoint)
    loaded = load_checkpoint(model, checkpoint, map_location='cpu')
    visualizer = cfg.get('visualizer', dict(type='Visualizer'))
    visualizer = VISUALIZERS.build(
        {**visualizer, 'name': 'attention', 'vis_backends': None}
    )
    visualizer.dataset_meta = loaded.get('meta', {}).get('dataset_meta', {})
    return model.to(device).eval(), visualizer


def test_pipeline(cfg: Config) -> Compose:
    """The config's test pipeline without annotations."""
    transforms = cfg.test_dataloader.dataset.pipeline
    return Compose([t for t in transforms if 'Annotation' not in t['type']])


def images(source: Path) -> list[Path]:
    """An image, or the images of a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(p for p in source.glob('*') if p.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f'{source}: neither an image nor a folder of')
    return found


def loadable(pipeline: Compose, path: Path) -> dict[str, Any]:
    """An image for a pipeline that loads files, or, as those of CIFAR and
    SVHN, is given arrays."""
    if any('Load' in type(t).__name__ for t in pipeline.transforms):
        return dict(img_path=str(path), img_id=0)
    image = mmcv.imread(str(path), channel_order='rgb')
    size = image.shape[:2]
    return dict(img=image, img_shape=size, ori_shape=size)


def of_files(
    pipeline: Compose, source: Path
) -> tuple[int, Iterator[tuple[str, Any]]]:
    """How many images there are, and each one's path and data.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = images(source)
    return len(paths), (
        (str(p), pipeline(loadable(pipeline, p))) for p in paths
    )


def of_test_set(cfg: Config) -> tuple[int, Iterator[tuple[str, Any]]]:
    """The same of the config's test images, with their ground truth."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)

    def read() -> Iterator[tuple[str, Any]]:
        for number in range(len(dataset)):
            data = dataset[number]
            path = data['data_samples'].get('img_path')
            yield path or f'sample_{number:05d}', data

    return len(dataset), read()


def metric_of(cfg: Config) -> AttentionMetric:
    """With the fields that the config's AttentionEvalHook gives it."""
    hooks = [*cfg.get('default_hooks', {}).values()]
    for hook in [*hooks, *cfg.get('custom_hooks', [])]:
        if hook and hook.get('type') == 'mmaib.AttentionEvalHook':
            return AttentionMetric(**hook.get('metric') or {})
    return AttentionMetric()


@torch.no_grad()
def draw(
    model: Any,
    visualizer: Visualizer,
    metric: AttentionMetric,
    path: str,
    data: Any,
    name: Path,
    score_thr: float,
) -> dict[str, float]:
    """Write the pictures and the raw maps of one image; its scores."""
    data = pseudo_collate([data])
    with capture_attention(model) as captured_maps:
        sample = model.test_step(data)[0].cpu()
    maps = whole_maps(model, captured_maps, sample.metainfo)
    if is_classified(sample):
        image, sample = classifier_input(model, data['inputs'], sample)
    else:
        image = mmcv.imread(path, channel_order='rgb')
    drawn = picture(visualizer, maps, image, sample, score_thr=score_thr)
    mmcv.imwrite(drawn[..., ::-1], f'{name}.png')
    attention = mean_over_levels(maps, 0, sample.metainfo).numpy()
    mmcv.imwrite(overlay(image, attention)[..., ::-1], f'{name}.overlay.jpg')
    bits = bits_on_image(maps, 0, sample.metainfo)
    if bits is not None:
        np.save(f'{name}.bits.npy', bits.numpy())
    for level, captured in enumerate(maps):
        stem = f'{name}.level{level}'
        np.save(f'{stem}.npy', captured.mean[0, 0].cpu().numpy())
        if captured.quantized is not None:
            quantized = captured.quantized[0, 0].cpu().numpy()
            np.save(f'{stem}.quantized.npy', quantized)
    known = {**sample.metainfo, **sample.to_dict()}
    return {**metric.scores(maps, 0, known), **to_truth(known, score_thr)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        'images',
        type=Path,
        nargs='?',
        help="an image or a folder; default: the config's test images",
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--score-thr', type=float, default=0.3)
    parser.add_argument('--max-images', type=int, help='the first so many')
    parser.add_argument(
        '--device',
        type=device_argument,
        default=get_device(),
        help='default: a GPU if there is one',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    compat.register_config_sources()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    model, visualizer = load(cfg, args.checkpoint, args.device)
    try:
        count, found = (
            of_files(test_pipeline(cfg), args.images)
            if args.images
            else of_test_set(cfg)
        )
    except FileNotFoundError as error:
        sys.exit(str(error))
    count = min(count, args.max_images or count)
    args.out.mkdir(parents=True, exist_ok=True)
    metric = metric_of(cfg)
    scores: dict[str, dict] = {}
    for path, data in track_iter_progress((islice(found, count), count)):
        name = Path(path).stem
        if name in scores:  # of another folder
            name = f'{Path(path).parent.name}_{name}'
        scores[name] = draw(
            model,
            visualizer,
            metric,
            path,
            data,
            args.out / name,
            args.score_thr,
        )
    (args.out / 'scores.json').write_text(
        json.dumps(
            dict(
                config=args.config, checkpoint=args.checkpoint, images=scores
            ),
            indent=1,
        )
    )
    print(f'\n{count} pictures in {args.out}')


if __name__ == '__main__':
    main()
