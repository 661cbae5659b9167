"""A model of any base library on test images, clean, corrupted and foreign,
through its base library's loader and metrics."""

import argparse
import inspect
import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from mmaib.cli.visualize import load
from mmaib.evaluation import at_temperature, fitted_temperature, roc_auc
from mmaib.evaluation.ablation import evaluate
from mmaib.evaluation.calibration import log_of
from mmaib.evaluation.calibration_metric import (
    confidence_of,
    labels_of_pixels,
    of_pixels,
)
from mmaib.registry import METRICS, type_name
from mmaib.visualization import image_sources

OURS = {
    'mmdet': 'mmaib.DetectionCalibrationMetric',
    'mmseg': 'mmaib.CalibrationMetric',
    'mmpretrain': 'mmaib.CalibrationMetric',
}
UNCERTAINTIES = ('entropy', 'mutual_information', 'score_std')
EVERY = 10  # one training image of so many is held out
# a temperature is fitted on about so many detections or pixels
FITTED_ON = 200_000
Figures = dict[str, float]


class ImageSets:
    """The images that every arm is measured on, by the command's arguments
    and PLAIN's config."""

    def __init__(self, args: argparse.Namespace, cfg: Config) -> None:
        init_default_scope(cfg.default_scope)
        self.args, self.cfg = args, cfg
        self.ours = OURS[cfg.default_scope]
        own = cfg.test_evaluator
        self.bases = [
            metric
            for metric in (own if isinstance(own, list) else [own])
            if not type_name(metric['type']).startswith('mmaib.')
        ]
        self.shifts = [
            Corrupted(name, severity, args.out / 'images')
            for name in args.corruptions
            for severity in args.severities
        ]

    def figures(
        self, cfg: Config, checkpoint: str, scaled: bool
    ) -> list[Figures]:
        """Those of a trained arm and, if asked for, those of its scaled
        probabilities, with the temperature."""
        model = load(cfg, checkpoint, get_device())
        temperatures = [1.0]
        if scaled:
            temperatures.append(fitted_temperature(*self._held_out(model)))
        clean = Unsure(temperatures)
        by_set = {'clean': self._test(model, temperatures, [clean])}
        for shift in self.shifts:
            print(f'  {shift.folder.name}', flush=True)
            by_set[shift.folder.name] = self._test(
                model, temperatures, shift=shift
            )
        found = [
            {
                f'{where}/{name}': value
                for where, every in by_set.items()
                for name, value in every[i].items()
            }
            for i in range(len(temperatures))
        ]
        if self.args.ood:
            outside = self._unsure_of_foreign(model, temperatures)
            for own, *both in zip(found, clean.columns, outside.columns):
                own.update(told_apart(*both))
        if scaled:
            found[1]['temperature'] = temperatures[1]
        return found

    def _test(
        self,
        model: Any,
        temperatures: list[float],
        more: Sequence[BaseMetric] = (),
        shift: 'Corrupted | None' = None,
    ) -> list[Figures]:
        """The base library's metrics and mmaib's, at every temperature."""
        dataset = deepcopy(self.cfg.test_dataloader.dataset)
        if shift:
            dataset.pipeline = shift.behind_loading(dataset.pipeline)
        loader = self._loader(dataset)
        ours = [
            dict(type=self.ours, temperature=t, prefix=f'{i}')
            for i, t in enumerate(temperatures)
        ]
        evaluator = Evaluator([*self.bases, *ours, *more])
        evaluator.dataset_meta = loader.dataset.metainfo
        found = evaluate(model, loader, evaluator)
        figures: list[Figures] = [{} for _ in temperatures]
        for name, value in found.items():
            place, _, own = name.partition('/')
            if place.isdigit():
                figures[int(place)][own] = float(value)
            else:  # no base metric depends on the temperature
                for every in figures:
                    every[name.rpartition('/')[2]] = float(value)
        return figures

    def _loader(self, dataset: Any) -> Any:
        if most := self.args.max_images:
            there = dataset.get('indices')
            if there is None:
                there = range(len(DATASETS.build(dataset)))
            some = [there[i] for i in evenly(len(there), most)]
            dataset = dict(dataset, indices=some)
        own = dict(num_workers=0, persistent_workers=False, dataset=dataset)
        return Runner.build_dataloader(
            {**self.cfg.test_dataloader, **own}, seed=0
        )

    @torch.no_grad()
    def _held_out(self, model: Any) -> tuple[Tensor, Tensor]:
        """Log-probabilities and labels that a temperature is fitted on."""
        loader = self._loader(held_out(self.args, self.cfg))
        metric = METRICS.build(dict(type=self.ours))
        share = -(-FITTED_ON // len(loader.dataset))
        found = []
        for batch in loader:
            for sample in model.test_step(batch):
                log_probs, labels, *_ = metric.predictions(sample.to_dict())
                kept = evenly(len(labels), share)
                found.append([log_probs[kept].cpu(), labels[kept].cpu()])
        log_probs, labels = (torch.cat(every) for every in zip(*found))
        return log_probs, labels

    @torch.no_grad()
    def _unsure_of_foreign(
        self, model: Any, temperatures: list[float]
    ) -> 'Unsure':
        """Of a folder's images, a classifier's at the size of its test
        images, which its pipeline need not bring them to."""
        pipeline = image_sources.test_pipeline(self.cfg)
        count, foreign = image_sources.of_files(pipeline, self.args.ood)
        size = None
        if self.cfg.default_scope == 'mmpretrain':
            test = DATASETS.build(self.cfg.test_dataloader.dataset)
            size = test[0]['inputs'].shape[:0:-1]
        # draws are those of a place in a batch
        together = self.cfg.test_dataloader.batch_size
        found = Unsure(temperatures)
        while some := [data for _, data in islice(foreign, together)]:
            for data in some if size else ():
                pixels = data['inputs'].permute(1, 2, 0).numpy()
                pixels = mmcv.imresize(pixels, size)
                data['inputs'] = torch.from_numpy(pixels).permute(2, 0, 1)
            batch = pseudo_collate(some)
            samples = model.test_step(batch)
            found.process(batch, [sample.to_dict() for sample in samples])
        found.evaluate(count)
        return found


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


class Corrupted:
    """A step of a test pipeline, between reading an image and all else: the
    same noise whenever an image is seen, in every arm and seed. What was made
    is kept in a folder by name, of imagecorruptions, and severity."""

    def __init__(self, name: str, severity: int, folder: Path) -> None:
        self.name, self.severity = name, severity
        self.folder = folder / f'{name}-{severity}'

    def behind_loading(self, pipeline: list) -> list:
        """The pipeline with this step: in front, if images are loaded with
        their annotations, as those of CIFAR are."""
        loads = ['Load' in type_name(step['type']) for step in pipeline]
        first = loads.index(True) + 1 if any(loads) else 0
        return [*pipeline[:first], self, *pipeline[first:]]

    def __call__(self, results: dict) -> dict:
        image = np.ascontiguousarray(results['img'])
        read = 'img_path' in results  # BGR then, else an array in RGB
        key = str(results.get('sample_idx'))
        # a classifier's files may have one name in every class
        if read and 'gt_label' not in results:
            key = Path(results['img_path']).name
        checksum = zlib.crc32(image.tobytes())
        path = self.folder / f'{key}-{checksum:08x}.png'
        if not path.exists():
            rgb = image[..., ::-1] if read else image
            found = corrupt(rgb, self.name, self.severity, key)
            partial = path.with_suffix('.partial.png')
            mmcv.imwrite(found[..., ::-1], str(partial))
            partial.rename(path)
        order = 'bgr' if read else 'rgb'
        return dict(results, img=mmcv.imread(str(path), channel_order=order))


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


class Unsure(BaseMetric):
    """Keeps :func:`of_image` of every image, at every temperature."""

    def __init__(self, temperatures: Sequence[float]) -> None:
        super().__init__(prefix='unsure')
        self.temperatures = temperatures
        self.columns: list[dict[str, Tensor]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results += [
            [of_image(sample, t) for t in self.temperatures]
            for sample in data_samples
        ]

    def compute_metrics(self, results: list) -> Figures:
        """None, but ``columns``: by temperature and name a value of each
        image."""
        self.columns = [
            {
                name: torch.tensor([row[name] for row in column]).double()
                for name in column[0]
            }
            for column in zip(*results)
        ]
        return {}


def of_image(sample: Mapping[str, Any], temperature: float) -> Figures:
    """How unsure a model is of a whole image: a classifier of its class, a
    segmentor of its pixels on the average; a detector of its surest
    detection, wholly if it has none."""
    if 'pred_score' in sample:
        log_probs = log_of(sample['pred_score'])[None]
        best = at_temperature(log_probs, temperature).max().exp()
        values = {n: sample[n] for n in UNCERTAINTIES if n in sample}
    elif 'seg_logits' in sample:
        log_probs = at_temperature(of_pixels(sample), temperature)
        answered = labels_of_pixels(sample, log_probs.device)
        best = confidence_of(log_probs, answered)[0].mean()
        there = [name for name in UNCERTAINTIES if name in sample]
        values = {name: sample[name]['data'].mean() for name in there}
    else:
        found = sample['pred_instances']
        there = [name for name in UNCERTAINTIES if name in found]
        if not len(found['scores']):
            return dict.fromkeys(['', *there], float('inf'))
        surest = int(found['scores'].argmax())
        best = found['scores'][surest]
        values = {name: found[name][surest] for name in there}
    return {'': 1 - float(best), **{n: float(v) for n, v in values.items()}}


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
