"""A model of any base library on test images, clean and corrupted, through
its base library's loader and metrics."""

import argparse
import inspect
import zlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from calibrators import FITS, Calibrator, joined, some
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmaib.cli.loading import load_model
from mmaib.evaluation.ablation import evaluate
from mmaib.evaluation.calibration_metric import Predictions
from mmaib.registry import METRICS, type_name

OURS = {
    'mmdet': 'mmaib.DetectionCalibrationMetric',
    'mmseg': 'mmaib.CalibrationMetric',
    'mmpretrain': 'mmaib.CalibrationMetric',
}
EVERY = 10  # one training image of so many is held out
# calibrators are fitted on about so many detections or pixels
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
        self, cfg: Config, checkpoint: str, fits: Sequence[str]
    ) -> list[Figures]:
        """Those of a trained arm, then those of its calibrated
        probabilities."""
        model = load_model(cfg, checkpoint, get_device())
        calibrators: list[Calibrator | None] = [None]
        if fits:
            found = self._held_out(model)
            calibrators += [FITS[name](found) for name in fits]
        by_set = {'clean': self._test(model, calibrators)}
        for shift in self.shifts:
            print(f'  {shift.folder.name}', flush=True)
            by_set[shift.folder.name] = self._test(model, calibrators, shift)
        return [
            {
                f'{where}/{name}': value
                for where, every in by_set.items()
                for name, value in every[i].items()
            }
            for i in range(len(calibrators))
        ]

    def _test(
        self,
        model: Any,
        calibrators: Sequence[Calibrator | None],
        shift: 'Corrupted | None' = None,
    ) -> list[Figures]:
        """The base library's metrics and mmaib's, by every calibrator."""
        dataset = deepcopy(self.cfg.test_dataloader.dataset)
        if shift:
            dataset.pipeline = shift.after_loading(dataset.pipeline)
        loader = self._loader(dataset)
        ours = [
            dict(type=self.ours, calibrator=calibrator, prefix=f'{i}')
            for i, calibrator in enumerate(calibrators)
        ]
        evaluator = Evaluator([*self.bases, *ours])
        evaluator.dataset_meta = loader.dataset.metainfo
        found = evaluate(model, loader, evaluator)
        figures: list[Figures] = [{} for _ in calibrators]
        for name, value in found.items():
            place, _, own = name.partition('/')
            if place.isdigit():
                figures[int(place)][own] = float(value)
            else:  # no base metric depends on a calibrator
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
    def _held_out(self, model: Any) -> Predictions:
        """What calibrators are fitted on."""
        loader = self._loader(held_out(self.args, self.cfg))
        metric = METRICS.build(dict(type=self.ours))
        share = -(-FITTED_ON // len(loader.dataset))
        every = []
        for batch in loader:
            for sample in model.test_step(batch):
                found = metric.predictions(sample.to_dict())
                kept = evenly(len(found.labels), share)
                every.append(some(found, torch.tensor(kept)))
        return joined(every)


def held_out(args: argparse.Namespace, cfg: Config) -> Any:
    """The data set that calibrators are fitted on: the test's with the
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

    def after_loading(self, pipeline: list) -> list:
        """The pipeline with this step: first, if images are loaded with
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
