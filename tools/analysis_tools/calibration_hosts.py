"""A detector or a segmentor on test images, clean, corrupted and foreign,
through its host's loader and metrics."""

import argparse
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from analysis_tools import calibration_images as images
from analysis_tools import image_sources
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor

from mmaib.evaluation import at_temperature, fitted_temperature
from mmaib.evaluation.causal import evaluate
from mmaib.registry import METRICS

OURS = {
    'mmdet': 'mmaib.DetectionCalibrationMetric',
    'mmseg': 'mmaib.CalibrationMetric',
}
UNCERTAINTIES = ('entropy', 'mutual_information', 'score_std')
# a temperature is fitted on about so many detections or pixels
FITTED_ON = 200_000


class HostSets:
    """What :class:`calibration_images.ImageSets` is for classifiers.

    Args:
        args: of the command.
        cfg: of PLAIN.
    """

    def __init__(self, args: argparse.Namespace, cfg: Config) -> None:
        init_default_scope(cfg.default_scope)
        self.args, self.cfg = args, cfg
        self.ours = OURS[cfg.default_scope]
        own = cfg.test_evaluator
        self.hosts = [
            metric
            for metric in (own if isinstance(own, list) else [own])
            if not metric['type'].startswith('mmaib.')
        ]
        self.shifts = images.shifts(args)

    def figures(
        self, cfg: Config, checkpoint: str, scaled: bool
    ) -> list[images.Figures]:
        """Those of a trained arm and, if asked for, those of its scaled
        probabilities, with the temperature."""
        model = images.trained(cfg, checkpoint)
        temperatures = [1.0]
        if scaled:
            temperatures.append(fitted_temperature(*self._held_out(model)))
        by_set = {'clean': self._test(model, temperatures)}
        for name, severity in self.shifts:
            print(f'  {name}-{severity}', flush=True)
            by_set[f'{name}-{severity}'] = self._test(
                model, temperatures, Corrupted(name, severity)
            )
        found = [
            images.with_means(
                {name: every[i] for name, every in by_set.items()}
            )
            for i in range(len(temperatures))
        ]
        if self.args.ood:
            for own, more in zip(found, self._told_apart(model, temperatures)):
                own.update(more)
        if scaled:
            found[1]['temperature'] = temperatures[1]
        return found

    def _test(
        self,
        model: Any,
        temperatures: list[float],
        shift: 'Corrupted | None' = None,
    ) -> list[images.Figures]:
        """The host's figures and ours, at every temperature."""
        dataset = deepcopy(self.cfg.test_dataloader.dataset)
        if shift:
            dataset.pipeline = shift.behind_loading(dataset.pipeline)
        loader = self._loader(dataset)
        ours = [
            dict(type=self.ours, temperature=t, prefix=f'{i}')
            for i, t in enumerate(temperatures)
        ]
        evaluator = Evaluator([*self.hosts, *ours])
        evaluator.dataset_meta = loader.dataset.metainfo
        found = evaluate(model, loader, evaluator)
        # neither AP nor mIoU depends on the temperature
        of_host = {
            name.rpartition('/')[2]: float(value)
            for name, value in found.items()
            if not name.partition('/')[0].isdigit()
        }
        return [
            {
                **of_host,
                **{
                    name.partition('/')[2]: float(value)
                    for name, value in found.items()
                    if name.startswith(f'{i}/')
                },
            }
            for i in range(len(temperatures))
        ]

    def _loader(self, dataset: Any) -> Any:
        if most := self.args.max_images:
            count = len(DATASETS.build(dataset))
            dataset = dict(dataset, indices=[*images.evenly(count, most)])
        own = dict(num_workers=0, persistent_workers=False, dataset=dataset)
        return Runner.build_dataloader(
            {**self.cfg.test_dataloader, **own}, seed=0
        )

    @torch.no_grad()
    def _held_out(self, model: Any) -> tuple[Tensor, Tensor]:
        """Log-probabilities and labels that a temperature is fitted on."""
        loader = self._loader(images.held_out(self.args, self.cfg))
        metric = METRICS.build(dict(type=self.ours))
        share = -(-FITTED_ON // len(loader.dataset))
        found = []
        for batch in loader:
            for sample in model.test_step(batch):
                log_probs, labels = metric.predictions(sample.to_dict())
                kept = images.evenly(len(labels), share)
                found.append([log_probs[kept].cpu(), labels[kept].cpu()])
        log_probs, labels = (torch.cat(every) for every in zip(*found))
        return log_probs, labels

    def _told_apart(
        self, model: Any, temperatures: list[float]
    ) -> list[images.Figures]:
        """The test images from those of a folder, at every temperature."""
        pipeline = image_sources.test_pipeline(self.cfg)
        _, foreign = image_sources.of_files(pipeline, Path(self.args.ood))
        loader = self._loader(self.cfg.test_dataloader.dataset)
        inside = unsure(model, loader, temperatures)
        outside = unsure(
            model,
            (pseudo_collate([data]) for _, data in foreign),
            temperatures,
        )
        return [images.told_apart(*both) for both in zip(inside, outside)]


class Corrupted:
    """A step of a test pipeline, between reading an image and resizing it.

    Args:
        name: of imagecorruptions.
        severity: 1 to 5.
    """

    def __init__(self, name: str, severity: int) -> None:
        self.name, self.severity = name, severity

    def behind_loading(self, pipeline: list) -> list:
        """The pipeline with this step.

        Raises:
            SystemExit: if it loads no image from a file.
        """
        for i, step in enumerate(pipeline):
            if 'LoadImage' in step['type']:
                return [*pipeline[: i + 1], self, *pipeline[i + 1 :]]
        raise SystemExit('the test pipeline must have a LoadImageFromFile')

    def __call__(self, results: dict) -> dict:
        rgb = results['img'][..., ::-1]
        key = Path(results['img_path']).name
        found = images.corrupt(rgb, self.name, self.severity, key)
        return dict(results, img=np.ascontiguousarray(found[..., ::-1]))


def of_image(sample: Any, temperature: float) -> dict[str, float]:
    """How unsure a model is of a whole image: a segmentor of its pixels, on
    the average; a detector of its surest detection, wholly if it has
    none."""
    if 'seg_logits' in sample:
        logits = sample.seg_logits.data.float().flatten(1).T
        best = at_temperature(logits, temperature).max(1)[0].exp()
        found = {'': 1 - float(best.mean())}
        return found | {
            name: float(sample.get(name).data.mean())
            for name in UNCERTAINTIES
            if name in sample
        }
    detected = sample.pred_instances
    named = [name for name in UNCERTAINTIES if name in detected]
    if not len(detected):
        return dict.fromkeys(['', *named], float('inf'))
    surest = int(detected.scores.argmax())
    found = {'': 1 - float(detected.scores[surest])}
    return found | {name: float(detected[name][surest]) for name in named}


@torch.no_grad()
def unsure(
    model: Any, batches: Iterable[Any], temperatures: list[float]
) -> list[dict[str, Tensor]]:
    """:func:`of_image` of all images, at every temperature."""
    rows = [
        [of_image(sample, t) for t in temperatures]
        for batch in batches
        for sample in model.test_step(batch)
    ]
    return [
        {
            name: torch.tensor([row[name] for row in column]).double()
            for name in column[0]
        }
        for column in zip(*rows)
    ]
