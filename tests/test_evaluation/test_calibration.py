"""Calibration held against brute force, sklearn and COCO's own matching."""

import itertools
import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import log_loss
from support import classification as cls
from support import detection as det
from support import segmentation as seg

from mmaib.evaluation import (
    CalibrationMetric,
    DetectionCalibrationMetric,
    aurc,
    bin_sums,
    calibration_errors,
)
from mmaib.evaluation.detection_calibration_metric import matched_overlaps


def brute_force(confidence, right, bins):
    """ECE and MCE, a bin and a prediction at a time."""
    gaps, total = [], 0.0
    for b in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, right)
            if b / bins <= c < (b + 1) / bins or (c == 1 and b == bins - 1)
        ]
        if inside:
            gap = abs(sum(c - r for c, r in inside)) / len(inside)
            gaps.append(gap)
            total += gap * len(inside)
    return total / len(confidence), max(gaps)


@pytest.mark.parametrize('bins', [1, 7, 15])
def test_errors_are_those_of_a_loop(bins):
    confidence = torch.rand(300, dtype=torch.double) ** 3  # and empty bins
    confidence[:5] = 1.0
    right = torch.rand(300) < confidence.sqrt()
    expected = brute_force(confidence.tolist(), right.tolist(), bins)
    sums = bin_sums(confidence, right, bins)
    assert calibration_errors(sums) == pytest.approx(expected)
    # the same in parts
    parts = [
        bin_sums(c, r, bins)
        for c, r in zip(confidence.split(77), right.split(77))
    ]
    assert torch.allclose(sum(parts), sums)


def test_a_bin_has_its_lower_edge():
    """0.25 and 0.5 begin bins of four; the last one has 1 too."""
    confidence = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    counts = bin_sums(confidence, torch.ones(5), 4)[0]
    assert counts.tolist() == [1, 1, 1, 2]


def test_an_overlap_of_the_threshold_is_right_as_in_coco():
    """A half to the bit: pycocotools says the same."""
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=0)], categories=[dict(id=1)], info={},
        annotations=[dict(id=1, image_id=0, category_id=1, area=200,
                          bbox=[0, 0, 10, 20], iscrowd=0)],
    )  # fmt: skip
    coco.createIndex()
    half = dict(image_id=0, category_id=1, bbox=[0, 0, 10, 10], score=0.9)
    evaluation = COCOeval(coco, coco.loadRes([half]), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    assert evaluation.evalImgs[0]['dtMatches'][0] == 1
    found = matched_overlaps(
        torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.9]),
        torch.tensor([[0.0, 0, 10, 20]]), 0.5,
    )  # fmt: skip
    assert found.tolist() == [0.5]
    # and half on an ignored box is on it
    sample = image(
        [[0, 0, 10, 20]], [0.9], [0], [], [], ignored=[[0, 0, 10, 10]]
    )
    assert measured(DetectionCalibrationMetric(), [sample]) == {}


def test_no_prediction_has_no_error():
    with pytest.raises(ValueError, match='no prediction'):
        calibration_errors(bin_sums(torch.zeros(0), torch.zeros(0), 15))
    with pytest.raises(ValueError, match='no prediction'):
        aurc(torch.zeros(0), torch.zeros(0))


def test_aurc_is_the_mean_over_the_orders_of_ties():
    uncertainty = torch.tensor([0.5, 0.1, 0.5, 0.5, 0.9, 0.9])
    errors = torch.tensor([1.0, 0, 0, 1, 0, 1])
    areas = []
    for order in itertools.permutations(range(6)):
        if (uncertainty[list(order)].diff() < 0).any():
            continue
        found = errors[list(order)].cumsum(0)
        areas.append(float((found / torch.arange(1, 7)).mean()))
    area = aurc(uncertainty, errors)
    assert area == pytest.approx(np.mean(areas))
    # groups of equal uncertainty, told as groups
    groups = aurc(
        torch.tensor([0.1, 0.5, 0.9]),
        torch.tensor([0.0, 2, 1]),
        torch.tensor([1.0, 3, 2]),
    )
    assert groups == pytest.approx(area)


def classified(probs, labels, **uncertainties):
    return [
        dict(
            pred_score=score,
            gt_label=label[None],
            **{name: value[i] for name, value in uncertainties.items()},
        )
        for i, (score, label) in enumerate(zip(probs, labels))
    ]


def measured(metric, samples):
    metric.process({}, samples)
    found = metric.evaluate(len(samples))
    return {k.removeprefix('calibration/'): v for k, v in found.items()}


def test_a_classifiers_figures():
    probs = torch.randn(200, 5).mul(2).softmax(1)
    labels = torch.multinomial(probs.sqrt(), 1)[:, 0]
    entropy = -(probs * probs.log()).sum(1)
    found = measured(
        CalibrationMetric(),
        classified(probs, labels, entropy=entropy),
    )
    confidence, predicted = probs.double().max(1)
    right = predicted == labels
    ece, mce = brute_force(confidence.tolist(), right.tolist(), 15)
    onehot = torch.eye(5)[labels]
    order = (1 - confidence).argsort()
    risks = (~right)[order].double().cumsum(0) / torch.arange(1, 201)
    by_entropy = (~right)[entropy.argsort()].double().cumsum(0)
    assert found == pytest.approx(
        dict(
            ece=ece,
            mce=mce,
            nll=log_loss(labels, probs.double(), labels=range(5)),
            brier=float((probs - onehot).square().sum(1).mean()),
            accuracy=float(right.double().mean()),
            aurc=float(risks.mean()),
            aurc_entropy=float((by_entropy / torch.arange(1, 201)).mean()),
        ),
        rel=1e-5,
    )


def test_perfectly_calibrated_and_always_sure():
    # of ten at 0.7 seven are right, so each bin's gap is 0
    probs = torch.tensor([[0.7, 0.3]]).repeat(10, 1)
    labels = torch.tensor([0] * 7 + [1] * 3)
    found = measured(CalibrationMetric(), classified(probs, labels))
    assert found['ece'] == pytest.approx(0, abs=1e-6)
    assert found['aurc'] == pytest.approx(0.3)
    sure = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    found = measured(CalibrationMetric(), classified(sure, labels))
    assert (found['ece'], found['mce']) == pytest.approx((0.3, 0.3))
    assert found['brier'] == pytest.approx(0.6)
    # sure of the wrong class costs much, but not infinitely much
    tiny = torch.finfo(torch.float32).tiny
    assert found['nll'] == pytest.approx(-0.3 * math.log(tiny))


def segmented(logits, labels, **maps):
    maps = {name: dict(data=value[None]) for name, value in maps.items()}
    return dict(
        seg_logits=dict(data=logits), gt_sem_seg=dict(data=labels[None]),
        **maps,
    )  # fmt: skip


def test_a_pixel_counts_as_an_image_does():
    logits, images = 3 * torch.randn(2, 4, 6, 9), []
    for one in logits:
        labels = torch.randint(0, 4, (6, 9))
        labels[0, :3] = 255
        images.append((one, labels))
    found = measured(
        CalibrationMetric(), [segmented(*image) for image in images]
    )
    kept = [
        (one.flatten(1).T[labels.flatten() != 255], labels[labels != 255])
        for one, labels in images
    ]
    probs = torch.cat([one for one, _ in kept]).softmax(1)
    labels = torch.cat([labels for _, labels in kept])
    assert len(labels) == 2 * (54 - 3)
    expected = measured(CalibrationMetric(), classified(probs, labels))
    assert found == pytest.approx(expected, rel=5e-3)
    exact = [name for name in found if name != 'aurc']
    assert {n: found[n] for n in exact} == pytest.approx(
        {n: expected[n] for n in exact}
    )


def test_one_output_channel_is_a_probability_by_then():
    p = torch.rand(1, 3, 4)
    labels = torch.randint(0, 2, (3, 4))
    both = torch.cat([1 - p, p]).log()
    found = measured(CalibrationMetric(), [segmented(p, labels)])
    expected = measured(CalibrationMetric(), [segmented(both, labels)])
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_output_channel_answers_by_its_threshold():
    """mmseg's 0.3: 0.4 is a yes, of which the model is 0.4 sure."""
    p = torch.tensor([[[0.4, 0.4, 0.2, 0.9]]])
    labels = torch.tensor([[1, 0, 0, 1]])
    sample = segmented(p, labels)
    sample['pred_sem_seg'] = dict(data=(p > 0.3).long())
    found = measured(CalibrationMetric(num_bins=10), [sample])
    assert found['accuracy'] == 0.75
    # 0.4 twice, of which one is right; 0.8 and 0.9
    assert found['ece'] == pytest.approx((2 * 0.1 + 0.2 + 0.1) / 4)
    hot = measured(CalibrationMetric(calibrator=scaled_by(4.0)), [sample])
    assert hot['accuracy'] == 0.75  # a temperature changes no answer
    # as a pixel without a label is left out of it
    labels[0, 0] = 255
    found = measured(CalibrationMetric(), [segmented(p, labels) | {
        'pred_sem_seg': sample['pred_sem_seg']}])  # fmt: skip
    assert found['accuracy'] == pytest.approx(2 / 3)


def test_pixels_without_a_label_have_no_figure():
    labels = torch.full((3, 4), 255)
    assert measured(
        CalibrationMetric(), [segmented(torch.randn(2, 3, 4), labels)]
    ) == {}  # fmt: skip


def test_levels_of_pixels_tell_sure_ones_apart():
    """Their AURC is close to the exact one though nearly all are sure."""
    logits = torch.randn(3, 80, 80) * 12
    labels = logits.argmax(0)
    wrong = torch.rand(80, 80) < (1 - logits.softmax(0).amax(0)) + 0.01
    labels[wrong] = (labels[wrong] + 1) % 3
    found = measured(CalibrationMetric(), [segmented(logits, labels)])
    confidence = logits.double().softmax(0).amax(0).flatten()
    exact = aurc(1 - confidence, wrong.flatten().double())
    assert found['aurc'] == pytest.approx(exact, rel=0.02)
    assert exact < 0.5 * float(wrong.double().mean())


def image(boxes, scores, labels, true_boxes, true_labels, ignored=(), **more):
    """A detector's sample, as evaluators get it."""

    def of(boxes, labels, **fields):
        boxes = torch.as_tensor(boxes).reshape(-1, 4).float()
        labels = torch.as_tensor(labels).long()
        return InstanceData(bboxes=boxes, labels=labels, **fields)

    return dict(
        pred_instances=of(boxes, labels, scores=torch.as_tensor(scores)),
        gt_instances=of(true_boxes, true_labels),
        ignored_instances=of(ignored, [0] * len(ignored)),
        ori_shape=(100, 200),
        **more,
    )


def test_detections_are_matched_as_coco_does():
    annotations, results, images = [], [], []
    for i in range(6):
        true = torch.rand(8, 2).mul(50)
        true = torch.cat([true, true + 10 + 30 * torch.rand(8, 2)], dim=1)
        boxes = torch.cat([true, true, true]) + 5 * torch.randn(24, 4)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        images.append((boxes, torch.rand(24), true))
        crowds = [False] * 8
        for (left, top, right, bottom), _ in zip(true.tolist(), crowds):
            box = [left, top, right - left, bottom - top]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=i, category_id=1,
                     bbox=box, area=box[2] * box[3], iscrowd=0)
            )  # fmt: skip
        for box, score in zip(boxes.tolist(), images[-1][1].tolist()):
            left, top, right, bottom = box
            box = [left, top, right - left, bottom - top]
            results.append(
                dict(image_id=i, category_id=1, bbox=box, score=score)
            )
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i) for i in range(6)],
        annotations=annotations,
        categories=[dict(id=1)],
        info={},
    )
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    for i, (boxes, scores, true) in enumerate(images):
        theirs = evaluation.evalImgs[i]['dtMatches'][0] > 0
        ours = matched_overlaps(boxes, scores, true, 0.5) > 0
        order = scores.argsort(descending=True, stable=True)
        assert ours[order].tolist() == theirs.tolist()
        assert 3 < ours.sum() <= 8


def test_a_detectors_figures():
    # right, another class, one box twice, on a crowd, too low a score
    boxes = [
        [0, 0, 20, 20], [0, 0, 20, 20], [50, 50, 90, 90], [50, 50, 90, 91],
        [150, 0, 160, 10], [0, 0, 20, 20],
    ]  # fmt: skip
    scores = [0.95, 0.85, 0.62, 0.68, 0.98, 0.1]
    labels = [0, 1, 0, 0, 0, 0]
    sample = image(
        boxes, scores, labels, [[0, 0, 20, 20], [50, 50, 90, 90]], [0, 0],
        ignored=[[140, 0, 200, 60]],
    )  # fmt: skip
    stds = torch.tensor([0.0, 0.3, 0.2, 0.1, 0.5, 0.6])
    sample['pred_instances'].score_std = stds
    metric = DetectionCalibrationMetric(num_bins=10)
    found = measured(metric, [sample])
    kept, right = [0.95, 0.85, 0.62, 0.68], [1, 0, 0, 1]
    aurc = np.mean([0, 1 / 2, 1 / 3, 2 / 4])
    aurc_std = np.mean([0, 0, 1 / 3, 2 / 4])
    assert found == pytest.approx(
        dict(
            d_ece=(0.05 + 0.85 + abs(0.62 + 0.68 - 1)) / 4,
            d_mce=0.85,
            # overlaps 1, 0 and 40 / 41 of class 0, in bins of their own; 0
            # of class 1
            laece_0=((0.05 + 0.62 + abs(0.68 - 40 / 41)) / 3 + 0.85) / 2,
            # two right, two wrong, none missed
            lrp=((1 / 41) / 0.5 + 2) / 4,
            nll=log_loss(right, kept),
            brier=np.mean([(s - r) ** 2 for s, r in zip(kept, right)]),
            precision=0.5,
            aurc=aurc,
            aurc_score_std=aurc_std,
        ),
        rel=1e-5,
    )


def test_no_detections_at_all():
    empty = image([], [], [], [[0, 0, 5, 5]], [0])
    metric = DetectionCalibrationMetric()
    assert measured(metric, [empty, empty]) == {}
    full = image([[0, 0, 5, 5]], [0.9], [0], [[0, 0, 5, 5]], [0])
    assert measured(metric, [empty, full])['precision'] == 1
    nothing_there = image([[0, 0, 5, 5]], [0.9], [0], [], [])
    assert measured(metric, [nothing_there])['precision'] == 0


def scaled_by(temperature):
    return lambda found: (found.log_probs / temperature).log_softmax(1)


def test_a_calibrators_probabilities_are_looked_at():
    logits = 3 * torch.randn(2, 4, 6, 9)
    labels = torch.randint(0, 4, (2, 6, 9))
    scaled, by_hand = (
        measured(
            CalibrationMetric(calibrator=scaled_by(t)),
            [segmented(x / (2.5 / t), y) for x, y in zip(logits, labels)],
        )
        for t in (2.5, 1.0)
    )
    assert scaled == pytest.approx(by_hand)
    probs, labels = torch.randn(50, 3).softmax(1), torch.arange(50) % 3
    scaled = measured(
        CalibrationMetric(calibrator=scaled_by(0.5)),
        classified(probs, labels),
    )
    squares = probs.double().square()
    assert scaled['nll'] == pytest.approx(
        log_loss(labels, squares / squares.sum(1, keepdim=True))
    )


def test_a_detectors_calibrator_drops_no_detection():
    boxes = [[0, 0, 20, 20], [50, 50, 90, 90], [150, 0, 160, 10]]
    scores, right = torch.tensor([0.9, 0.6, 0.35]), [1, 1, 0]
    sample = image(boxes, scores, [0, 0, 0], boxes[:2], [0, 0])
    metric = DetectionCalibrationMetric(calibrator=scaled_by(0.25))
    found = measured(metric, [sample])
    scaled = (scores.double().logit() / 0.25).sigmoid()
    assert scaled[-1] < 0.3  # below score_thr by now
    assert found['precision'] == pytest.approx(2 / 3)
    assert found['nll'] == pytest.approx(log_loss(right, scaled), rel=1e-5)
    # and sees their classes and boxes, relative to the image
    given = metric.predictions(sample)
    assert given.classes.tolist() == [0, 0, 0]
    height, width = sample['ori_shape'][:2]
    assert given.boxes[0].tolist() == pytest.approx(
        [10 / width, 10 / height, 20 / width, 20 / height]
    )


def test_a_calibrator_is_given_no_image_without_a_prediction():
    """scikit-learn's refuse one."""

    def calibrator(found):
        assert len(found.labels)
        return found.log_probs

    sample = image([[0, 0, 20, 20]], torch.tensor([0.9]), [0], [], [])
    empty = image([], torch.zeros(0), [], [[0, 0, 20, 20]], [0])
    unlabelled = segmented(torch.rand(3, 2, 2), torch.full((2, 2), 255))
    for kind, samples in (
        (DetectionCalibrationMetric, [sample, empty]),
        (
            CalibrationMetric,
            [segmented(torch.rand(3, 2, 2), torch.ones(2, 2)), unlabelled],
        ),
    ):
        found = measured(kind(calibrator=calibrator), samples)
        assert found == measured(kind(), samples)


def test_samples_of_another_kind_are_refused():
    with pytest.raises(ValueError, match='a detector has'):
        CalibrationMetric().process({}, [image([], [], [], [], [])])
    with pytest.raises(ValueError, match='needs pred_instances'):
        DetectionCalibrationMetric().process(
            {}, classified(torch.ones(1, 2), torch.zeros(1).long())
        )
    twice = dict(pred_score=torch.ones(2) / 2, gt_label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match='one gt_label'):
        CalibrationMetric().process({}, [twice])


@pytest.mark.parametrize(
    ('kind', 'field'),
    [
        (CalibrationMetric, 'num_bins'),
        (DetectionCalibrationMetric, 'num_bins'),
    ],
)
def test_bad_fields(kind, field):
    with pytest.raises(ValueError, match=f'{field} must be >= 1'):
        kind(**{field: 0})


@pytest.mark.parametrize('library', [cls, seg, det])
def test_in_a_test_of_each_library(library, new_runner):
    """Predictions as the base libraries' own loops hand them over."""
    kind = 'Detection' if library is det else ''
    fields = dict(score_thr=0.0) if library is det else {}
    metric = dict(type=f'mmaib.{kind}CalibrationMetric', **fields)
    model = det.detector() if library is det else library.make()
    data = library.inputs()
    if library is det:
        for sample in data['data_samples']:
            size = sample.img_shape
            sample.set_metainfo(dict(ori_shape=size, scale_factor=(1.0, 1.0)))
    runner = new_runner(model, data, test_evaluator=metric)
    found = runner.test()
    error = 'd_ece' if library is det else 'ece'
    assert 0 <= found[f'calibration/{error}'] <= 1
    assert math.isfinite(found['calibration/nll'])


def test_a_score_at_the_threshold_is_looked_at():
    box = [0, 0, 20, 20]
    samples = [image([box], [0.25], [0], [box], [0])] * 8
    found = measured(DetectionCalibrationMetric(score_thr=0.25), samples)
    assert found['precision'] == 1
    assert found['laece_0'] == pytest.approx(0.75)
    assert found['lrp'] == 0


def test_what_a_detector_misses_is_an_error():
    """Of four objects one is found, at an overlap of 0.8."""
    true = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]]
    sample = image([[0, 0, 10, 8]], [0.9], [0], true, [0, 0, 0, 0])
    found = measured(DetectionCalibrationMetric(), [sample])
    assert found['lrp'] == pytest.approx((0.2 / 0.5 + 3) / 4)
    assert found['laece_0'] == pytest.approx(0.1)
    # below tau a box is wrong and its object is missed, but overlaps
    sample = image([[0, 0, 10, 4]], [0.9], [0], true[:1], [0])
    found = measured(DetectionCalibrationMetric(), [sample])
    assert found['lrp'] == 1
    assert found['laece_0'] == pytest.approx(0.5)


def test_an_ignored_box_excuses_its_class_alone_and_nothing_that_is_right():
    box, other = [0, 0, 20, 20], [50, 0, 70, 20]
    sample = image(
        [box, other], [0.9, 0.8], [0, 1], [box], [0], ignored=[box, other]
    )
    sample['ignored_instances'].labels = torch.tensor([0, 0])
    found = measured(DetectionCalibrationMetric(), [sample])
    # the first is right, though on an ignored box; the second's is another's
    assert found['precision'] == 0.5


def test_a_right_box_counts_by_its_own_overlap():
    """Without a threshold a surer, worse one takes its object."""
    true = [[0, 0, 10, 10]]
    boxes = [[0, 0, 10, 4], [0, 0, 10, 8]]
    sample = image(boxes, [0.9, 0.5], [0, 0], true, [0])
    found = measured(DetectionCalibrationMetric(), [sample])
    assert found['precision'] == 0.5
    assert found['lrp'] == pytest.approx((0.2 / 0.5 + 1) / 2)
    assert found['laece_0'] == pytest.approx((0.5 + 0.5) / 2)


def test_of_equal_scores_the_first_takes_the_box():
    box = torch.tensor([[0.0, 0, 10, 10]])
    scores = torch.full((20,), 0.5)
    found = matched_overlaps(box.repeat(20, 1), scores, box, 0.5)
    assert found.tolist() == [1.0] + [0.0] * 19


def test_a_segmentors_uncertainty_of_many_classes():
    """Entropies above one nat, and labels that are to be left out by another
    number than 255."""
    logits = torch.randn(12, 60, 60) * torch.rand(60, 60) * 4
    probs = logits.softmax(0)
    entropy = -(probs * probs.log()).sum(0)
    assert (entropy > 1).double().mean() > 0.5
    drawn = torch.distributions.Categorical(probs.flatten(1).T).sample()
    labels = drawn.view(60, 60)
    labels[:9] = 7
    sample = segmented(logits, labels, entropy=entropy)
    found = measured(CalibrationMetric(ignore_index=7), [sample])
    kept = (labels != 7).flatten()
    wrong = (logits.argmax(0) != labels).flatten()[kept].double()
    assert found['accuracy'] == pytest.approx(1 - float(wrong.mean()))
    exact = aurc(entropy.flatten()[kept], wrong)
    assert found['aurc_entropy'] == pytest.approx(exact, rel=0.01)


def test_an_uncertainty_that_not_every_image_has_has_no_figure():
    probs, labels = torch.rand(2, 3).softmax(1), torch.tensor([0, 1])
    first = classified(probs[:1], labels[:1], entropy=torch.ones(1))
    found = measured(
        CalibrationMetric(), [*first, *classified(probs[1:], labels[1:])]
    )
    assert 'aurc' in found
    assert 'aurc_entropy' not in found
