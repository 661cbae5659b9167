"""A classifier on test images, clean, corrupted and foreign, all kept in
memory."""

import argparse
import inspect
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from analysis_tools import image_sources
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from torch import Tensor

from mmaib.evaluation import (
    CalibrationMetric,
    at_temperature,
    fitted_temperature,
    roc_auc,
)
from mmaib.evaluation.calibration import log_of

EVERY = 10  # one training image of so many is held out
BINS, BATCH = 15, 100
UNCERTAINTIES = ('entropy', 'mutual_information')
Figures = dict[str, float]


class Images(NamedTuple):
    """A set of images ``(N, H, W, 3)``, uint8 RGB, and their labels."""

    pixels: np.ndarray
    labels: Tensor


class ImageSets:
    """The images that every arm is measured on, read once.

    Args:
        args: of the command.
        cfg: of PLAIN.
    """

    def __init__(self, args: argparse.Namespace, cfg: Config) -> None:
        init_default_scope(cfg.default_scope)
        bgr = bool(cfg.data_preprocessor.get('to_rgb', False))
        test = cfg.test_dataloader.dataset
        self.clean = images_of(test, bgr, args.max_images)
        self.held_out = images_of(held_out(args, cfg), bgr, args.max_images)
        self.outside = None
        if args.ood:
            size = self.clean.pixels.shape[1:3]
            self.outside = folder_of_images(args.ood, size)
        self.shifts = shifts(args)
        self.folder = args.out / 'images'

    def figures(
        self, cfg: Config, checkpoint: str, scaled: bool
    ) -> list[Figures]:
        """Those of a trained arm and, if asked for, those of its scaled
        probabilities, with the temperature."""
        predict = Predictor(cfg, checkpoint)
        predictions = {'clean': predict(self.clean.pixels)}
        for name, severity in self.shifts:
            pixels = corrupted(self.clean.pixels, name, severity, self.folder)
            predictions[f'{name}-{severity}'] = predict(pixels)
        if self.outside is not None:
            predictions['outside'] = predict(self.outside)
        found = [self._figures(predictions)]
        if scaled:
            log_probs = predict(self.held_out.pixels)['log_probs']
            t = fitted_temperature(log_probs, self.held_out.labels)
            predictions = {
                name: {'log_probs': at_temperature(found['log_probs'], t)}
                for name, found in predictions.items()
            }
            found.append({'temperature': t, **self._figures(predictions)})
        return found

    def _figures(
        self, predictions: Mapping[str, Mapping[str, Tensor]]
    ) -> Figures:
        inside = {k: v for k, v in predictions.items() if k != 'outside'}
        result = with_means(
            {k: figures(v, self.clean.labels) for k, v in inside.items()}
        )
        if 'outside' in predictions:
            clean, outside = (
                uncertainties(predictions[name])
                for name in ('clean', 'outside')
            )
            result.update(told_apart(clean, outside))
        return result


class Predictor:
    """A trained arm.

    Args:
        cfg: of the arm, its options merged.
        checkpoint: of its run.
    """

    def __init__(self, cfg: Config, checkpoint: str) -> None:
        self.bgr = bool(cfg.data_preprocessor.get('to_rgb', False))
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        self.model = trained(cfg, checkpoint)

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> dict[str, Tensor]:
        """Log-probabilities ``(N, C)`` in double and, with draws, the
        uncertainties ``(N,)``."""
        if self.bgr:
            pixels = pixels[..., ::-1]
        inputs = torch.from_numpy(np.ascontiguousarray(pixels))
        samples: list[Any] = []
        for batch in inputs.permute(0, 3, 1, 2).split(BATCH):
            samples += self.model.test_step(dict(inputs=[*batch]))
        found = {'log_probs': log_of(stacked(samples, 'pred_score'))}
        for name in UNCERTAINTIES:
            if name in samples[0]:
                found[name] = stacked(samples, name).double()
        return found


def trained(cfg: Config, checkpoint: str) -> Any:
    """A run's model, to be tested."""
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu')
    return model.to(get_device()).eval()


def stacked(samples: Sequence[Any], name: str) -> Tensor:
    return torch.stack([sample.get(name) for sample in samples]).cpu()


# Images
def held_out(args: argparse.Namespace, cfg: Config) -> Any:
    """The data set that a temperature is fitted on: the test's with the
    options of --held-out, or the training images that no arm has seen."""
    test = cfg.test_dataloader.dataset
    if args.held_out:
        own = Config(dict(dataset=test))
        own.merge_from_dict(
            {f'dataset.{name}': v for name, v in args.held_out.items()}
        )
        return own.dataset
    train = {**cfg.train_dataloader.dataset, 'pipeline': test.pipeline}
    count = len(DATASETS.build(train))
    return dict(train, indices=[*range(0, count, EVERY)])


def evenly(count: int, most: int | None) -> range:
    """Indices of about so many of them."""
    return range(0, count, 1 if most is None else -(-count // most))


def images_of(dataset_config: Any, bgr: bool, most: int | None) -> Images:
    """All images of a data set, as its pipeline gives them."""
    dataset = DATASETS.build(dataset_config)
    samples = [dataset[i] for i in evenly(len(dataset), most)]
    inputs = [sample['inputs'] for sample in samples]
    shapes = {tuple(image.shape) for image in inputs}
    if len(shapes) > 1 or inputs[0].dtype != torch.uint8:
        raise SystemExit(
            'the test pipeline must give uint8 images of one size, got '
            f'{inputs[0].dtype} of {sorted(shapes)[:3]}'
        )
    pixels = torch.stack(inputs).permute(0, 2, 3, 1).numpy()
    labels = torch.cat([s['data_samples'].gt_label for s in samples])
    return Images(pixels[..., ::-1] if bgr else pixels, labels)


def folder_of_images(folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Images of a folder at one size, ``(N, H, W, 3)`` RGB."""
    paths = image_sources.images(folder)
    read = [mmcv.imread(str(path), channel_order='rgb') for path in paths]
    return np.stack([mmcv.imresize(image, size[::-1]) for image in read])


# Shift
def shifts(args: argparse.Namespace) -> list[tuple[str, int]]:
    return [(c, s) for c in args.corruptions for s in args.severities]


def corrupt(
    image: np.ndarray, name: str, severity: int, key: str
) -> np.ndarray:
    """An RGB image with the same noise whenever it is made for this key."""
    from imagecorruptions import corruption_dict

    function = corruption_dict[name]
    seed = zlib.crc32(f'{name}-{severity}-{key}'.encode())
    np.random.seed(seed)
    takes_seed = 'seed' in inspect.signature(function).parameters
    own = dict(seed=seed) if takes_seed else {}
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(function(picture, severity, **own)).astype(np.uint8)


def corrupted(
    pixels: np.ndarray, name: str, severity: int, folder: Path
) -> np.ndarray:
    """All of them; kept in the folder."""
    checksum = zlib.crc32(pixels.tobytes())
    path = folder / f'{name}-{severity}-{checksum:08x}.npy'
    if not path.exists():
        print('corrupt', path.stem, flush=True)
        made = [
            corrupt(image, name, severity, str(i))
            for i, image in enumerate(pixels)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix('.partial.npy')
        np.save(partial, np.stack(made))
        partial.rename(path)
    return np.load(path)


# Figures
def figures(found: Mapping[str, Tensor], labels: Tensor) -> Figures:
    """Of predictions with labels, as mmaib.CalibrationMetric has them."""
    metric = CalibrationMetric(num_bins=BINS)
    named = {name: found[name] for name in UNCERTAINTIES if name in found}
    kept = metric.sums(found['log_probs'], labels, named)
    return metric.compute_metrics([kept])


def with_means(by_set: Mapping[str, Mapping[str, float]]) -> Figures:
    """All figures, those under shift one by one and their mean."""
    result = {}
    shifted: dict[str, list[float]] = {}
    for name, own in by_set.items():
        result.update({f'{name}/{k}': v for k, v in own.items()})
        if name != 'clean':
            severity = name.rpartition('-')[2]
            for k, v in own.items():
                shifted.setdefault(f'shift/{k}', []).append(v)
                shifted.setdefault(f'shift-{severity}/{k}', []).append(v)
    return {**result, **{k: mean(v) for k, v in shifted.items()}}


def uncertainties(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The lack of confidence, '', and what the draws tell."""
    named = {name: found[name] for name in UNCERTAINTIES if name in found}
    return {'': 1 - found['log_probs'].max(1)[0].exp(), **named}


def told_apart(
    inside: Mapping[str, Tensor], outside: Mapping[str, Tensor]
) -> Figures:
    """AUROC of each uncertainty."""
    result = {}
    for name, value in inside.items():
        scores = torch.cat([value, outside[name]])
        result[f'ood/auroc_{name}'.rstrip('_')] = roc_auc(
            scores, torch.arange(len(scores)) >= len(value)
        )
    return result
