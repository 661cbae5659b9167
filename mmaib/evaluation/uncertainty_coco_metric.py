from __future__ import annotations

from collections.abc import Sequence

from mmdet.evaluation import CocoMetric
from mmengine.fileio import dump, load

from mmaib.registry import METRICS

FIELDS = ('score_std', 'bbox_std', 'entropy')


@METRICS.register_module()
class UncertaintyCocoMetric(CocoMetric):
    """MMDetection's ``CocoMetric`` whose json files (``outfile_prefix``)
    also have ``score_std``, ``bbox_std`` (of left, top, right, bottom, in
    pixels) and ``entropy`` of each detection.

    Raises:
        ValueError: at the first batch, if detections have none: the model's
            ``test_draws`` has ``uncertainty=False``.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        before = len(self.results)
        super().process(data_batch, data_samples)
        for (_, result), sample in zip(self.results[before:], data_samples):
            found = sample['pred_instances']
            if any(name not in found for name in FIELDS):
                raise ValueError(
                    f'UncertaintyCocoMetric needs {", ".join(FIELDS)} in '
                    f'pred_instances, got {sorted(found.keys())}: set '
                    'uncertainty=True in test_draws of the model'
                )
            result['uncertainty'] = {n: found[n].tolist() for n in FIELDS}

    def results2json(
        self, results: Sequence[dict], outfile_prefix: str
    ) -> dict:
        files = super().results2json(results, outfile_prefix)
        for kind in ('bbox', 'segm'):
            if kind in files:
                detections = load(files[kind])
                # in the order in which mmdet wrote them
                rows = iter(detections)
                for result in results:
                    spread = result['uncertainty']
                    for i in range(len(result['labels'])):
                        next(rows).update({n: spread[n][i] for n in FIELDS})
                dump(detections, files[kind])
        return files
