"""A detector that finds nothing has an AP of 0, not none."""

import math

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import BaseMetric, Evaluator
from torch.utils.data import DataLoader

from mmaib.evaluation.causal import evaluate
from mmaib.evaluation.nothing_found import completed, of_nothing

AP = 'coco/bbox_mAP'


def test_what_is_0_and_what_stays():
    found = of_nothing(
        {
            AP: 0.5, f'{AP}_50': 0.7, f'{AP}_s': -1.0, 'coco/AR@100': 0.3,
            'coco/cell_precision': 0.2, 'coco/none_precision': math.nan,
            'pascal_voc/AP50': 0.4, 'lvis/segm_APr': 0.4,
            'mIoU': 40.0, 'calibration/d_ece': 0.1, 'precision': 0.9,
        }
    )  # fmt: skip
    assert math.isnan(found.pop('coco/none_precision'))
    assert found == {
        AP: 0, f'{AP}_50': 0, f'{AP}_s': -1, 'coco/AR@100': 0,
        'coco/cell_precision': 0, 'pascal_voc/AP50': 0, 'lvis/segm_APr': 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('run', 'alike', 'others', 'expected'),
    [
        # a seed that found nothing, the others of its config did
        ({'step': 9}, [{AP: 0.5}], [], {'step': 9, AP: 0}),
        # once every map is shuffled
        (
            {AP: 0.5, f'causal/mirror/{AP}': 0.2},
            [{f'causal/shuffle/{AP}': 0.1}],
            [],
            {AP: 0.5, f'causal/mirror/{AP}': 0.2, f'causal/shuffle/{AP}': 0},
        ),
        # found with a changed map alone
        (
            {f'causal/mirror/{AP}': 0.2},
            [],
            [],
            {f'causal/mirror/{AP}': 0.2, AP: 0},
        ),
        # no seed of its config found anything
        (
            {'step': 9, 'attention/auc': 0.5},
            [],
            [{AP: 0.5, 'calibration/d_ece': 0.1, f'causal/mirror/{AP}': 0.1}],
            {'step': 9, 'attention/auc': 0.5, AP: 0},
        ),
        # a segmentor beside detectors, one without masks beside one with
        ({'mIoU': 40.0}, [], [{AP: 0.5}], {'mIoU': 40.0}),
        ({AP: 0.4}, [], [{AP: 0.5, 'coco/segm_mAP': 0.5}], {AP: 0.4}),
        # it was never evaluated
        (
            {'train/gate_open': 0.5, 'seconds per step': 1.0},
            [{AP: 0.5}],
            [{AP: 0.5}],
            {'train/gate_open': 0.5, 'seconds per step': 1.0},
        ),
    ],
)
def test_a_run_that_found_nothing(run, alike, others, expected):
    assert completed(run, alike, others) == expected


class Blind(torch.nn.Module):
    def test_step(self, batch):
        return batch


class Empty(CocoMetric):
    """COCO's, of a detector whose every image is empty."""

    def __init__(self, **kwargs):
        BaseMetric.__init__(self, prefix='coco')
        self.metrics = ['bbox']
        self.format_only = kwargs.get('format_only', False)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


@pytest.mark.parametrize('format_only', [False, True])
def test_an_evaluation_gives_it(format_only):
    evaluator = Evaluator([Empty(format_only=format_only)])
    loader = DataLoader([0, 1])
    found = evaluate(Blind(), loader, evaluator)
    expected = {AP: 0, f'{AP}_50': 0, f'{AP}_75': 0}
    assert found == ({} if format_only else expected)
