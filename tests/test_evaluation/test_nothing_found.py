"""A detector that finds nothing has an AP of 0, not none."""

import json
import math

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import BaseMetric, Evaluator
from torch.utils.data import DataLoader

from mmaib.evaluation.ablation import evaluate
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
            {AP: 0.5, f'ablation/mirror/{AP}': 0.2},
            [{f'ablation/shuffle/{AP}': 0.1}],
            [],
            {
                AP: 0.5,
                f'ablation/mirror/{AP}': 0.2,
                f'ablation/shuffle/{AP}': 0,
            },
        ),
        # found with a changed map alone
        (
            {f'ablation/mirror/{AP}': 0.2},
            [],
            [],
            {f'ablation/mirror/{AP}': 0.2, AP: 0},
        ),
        # no seed of its config found anything
        (
            {'step': 9, 'attention/auc': 0.5},
            [],
            [
                {
                    AP: 0.5,
                    'calibration/d_ece': 0.1,
                    f'ablation/mirror/{AP}': 0.1,
                }
            ],
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
        self.metric_items = kwargs.get('metric_items')

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


def test_it_is_of_the_figures_that_the_metric_gives():
    evaluator = Evaluator([Empty(metric_items=['mAP_50'])])
    found = evaluate(Blind(), DataLoader([0]), evaluator)
    assert found == {f'{AP}_50': 0}


class Real(Empty):
    def compute_metrics(self, results):
        return {'bbox_mAP': 0.5}


def test_what_was_found_stays():
    evaluator = Evaluator([Real(metric_items=['mAP'])])
    assert evaluate(Blind(), DataLoader([0]), evaluator) == {AP: 0.5}


def test_mmdets_own_metric_of_empty_images(tmp_path):
    """Which has no figure for them."""
    path = tmp_path / 'coco.json'
    box = dict(bbox=[0, 0, 9, 9], area=81, iscrowd=0, category_id=1)
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=i, height=20, width=20) for i in (0, 1)],
                annotations=[dict(box, id=i + 1, image_id=i) for i in (0, 1)],
                categories=[dict(id=1, name='cell')],
            )
        )
    )

    class Detector(torch.nn.Module):
        def __init__(self, boxes):
            super().__init__()
            self.boxes = torch.tensor(boxes).reshape(-1, 4).float()

        def test_step(self, batch):
            count = len(self.boxes)
            return [
                dict(
                    img_id=int(i),
                    ori_shape=(20, 20),
                    pred_instances=dict(
                        bboxes=self.boxes,
                        scores=torch.ones(count),
                        labels=torch.zeros(count).long(),
                    ),
                )
                for i in batch
            ]

    def figures(boxes):
        evaluator = Evaluator([CocoMetric(ann_file=str(path), metric='bbox')])
        evaluator.dataset_meta = dict(classes=('cell',))
        return evaluate(Detector(boxes), DataLoader([0, 1]), evaluator)

    assert figures([]) == {AP: 0, f'{AP}_50': 0, f'{AP}_75': 0}
    found = figures([[0, 0, 9, 9]])
    assert found[AP] == pytest.approx(1)
    assert len(found) == 6
