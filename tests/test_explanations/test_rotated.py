"""Detections as rotated boxes: mmrotate's detectors where it is installed,
and their parts put into mmdet's own where it is not."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models import SingleStageDetector
from mmengine.config import ConfigDict
from support import base_models, matrix
from support import detection as det

import mmaib
from mmaib.evaluation import AttentionMetric
from mmaib.explanations import Place, Settings
from mmaib.explanations.detections import missed, predicted
from mmaib.explanations.explain import frozen, see, targets
from mmaib.explanations.page import picture
from mmaib.explanations.positions import dense_log_scores
from mmaib.functional import corners, enclosing, moved
from mmaib.hooks import AttentionEvalHook

BOX = torch.tensor([60.0, 50, 40, 16, 0.6])
UPRIGHT = torch.tensor([40.0, 42, 80, 58])
PIPELINE = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('ori_shape', 'img_shape', 'scale_factor'),
    ),
]


@pytest.fixture
def seen():
    """A small Faster R-CNN whose RoI layer is of rotated boxes, if asked."""

    def make(roi_layer, box):
        cfg = det.shrink(det.plain_config())
        cfg.model.roi_head.bbox_roi_extractor.roi_layer = dict(
            type=roi_layer, output_size=7, sampling_ratio=2
        )
        model = matrix.trained(det.build(cfg))
        data = {k: v[0] for k, v in det.inputs(((96, 128),)).items()}
        with frozen(model):
            seen = see(model, Place(model), data)
            return (
                model,
                seen,
                missed(model, seen.received, seen.sample, box, 1),
            )

    return make


@pytest.mark.parametrize(
    ('roi_layer', 'box', 'taken'),
    [
        ('RoIAlignRotated', BOX, BOX),
        ('RoIAlign', BOX, enclosing(BOX)),
        ('RoIAlignRotated', UPRIGHT, torch.tensor([60.0, 50, 40, 16, 0])),
    ],
)
def test_a_box_is_a_roi_as_its_extractor_takes_it(roi_layer, box, taken, seen):
    model, image, target = seen(roi_layer, box)
    # the box itself, and as it lies in a part of the features
    for log_scores, own in (
        (target.log_scores, taken),
        (target.shifted(8, 4, image.received), moved(taken, -8, -4)),
    ):
        rois = torch.cat([torch.zeros(1), own])[None]
        logits = model.roi_head._bbox_forward(image.received, rois)
        expected = logits['cls_score'].log_softmax(1)[0, 1].item()
        found = log_scores(image.received).item()
        assert found == pytest.approx(expected, rel=1e-5)


class FourOutputs(torch.nn.Module):
    cls_out_channels = 2

    def predict_by_feat(self, cls_scores, bbox_preds, angle_preds, factors):
        raise NotImplementedError


def test_an_angle_is_no_centerness():
    logits, factor = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 3, 4)
    angle = torch.randn(1, 1, 3, 4)
    raw = [logits], [torch.randn(1, 4, 3, 4)], [angle], [factor]
    expected = torch.nn.functional.logsigmoid
    (found,) = dense_log_scores(FourOutputs(), raw)
    assert torch.equal(found[:, 0], expected(logits) + expected(factor))
    (without,) = dense_log_scores(FourOutputs(), raw[:3])
    assert torch.equal(without[:, 0], expected(logits))


class Refining(SingleStageDetector):
    """One head that looks twice, as those that refine boxes do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bbox_head_refine = torch.nn.ModuleList([self.bbox_head])
        del self.bbox_head

    def _forward(self, batch_inputs, batch_data_samples=None):
        x = self.extract_feat(batch_inputs)
        return self.bbox_head_refine[0]([level * 2 for level in x])

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        metas = [sample.metainfo for sample in batch_data_samples]
        found = self.bbox_head_refine[0].predict_by_feat(
            *self._forward(batch_inputs),
            batch_img_metas=metas,
            rescale=rescale,
        )
        return self.add_pred_to_datasample(batch_data_samples, found)


def test_the_last_of_heads_that_refine_is_explained():
    cfg = base_models.config('RetinaNet')
    plain = spread_scores(base_models.build(cfg))
    fields = copy.deepcopy(cfg.model)
    fields.pop('type')
    model = Refining(**fields)
    state = plain.state_dict()
    for key in [*state]:
        new = key.replace('bbox_head.', 'bbox_head_refine.0.')
        state[new] = state.pop(key)
    model.load_state_dict(state)
    data = {k: v[0] for k, v in base_models.inputs(cfg, 1).items()}
    with frozen(model):
        seen = see(model, Place(model), data)
        found = targets(model, seen, score_thr=0.0, at_most=5)
        best = predicted(model, seen.received, [seen.sample])[0][:5]
    assert [t.label for t in found] == best.labels.tolist()
    for target, score in zip(found, best.scores):
        own = target.log_scores(seen.received).exp()
        assert own.item() == pytest.approx(score.item(), rel=1e-3)


def spread_scores(model):
    """An untrained head gives one score everywhere: give it many."""
    model = matrix.trained(model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and ('_cls.w' in name or '_cls.conv.w' in name):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def rotated_model(name, tmp_path):
    """With a gate, and what explaining asks of it."""
    cfg = matrix.config_in(tmp_path, name)
    model = spread_scores(matrix.wrapped(tmp_path, 'gate'))
    model.cfg = ConfigDict(
        test_dataloader=dict(dataset=dict(pipeline=copy.deepcopy(PIPELINE))),
        default_scope='mmrotate',
    )
    return model, base_models.inputs(cfg)


@pytest.mark.parametrize('name', base_models.rotated())
def test_a_rotated_detection_is_explained(name, tmp_path):
    pytest.importorskip('mmrotate')
    model, _ = rotated_model(name, tmp_path)
    image = np.random.default_rng(0).integers(
        0, 255, (120, 150, 3), dtype=np.uint8
    )
    with torch.no_grad():
        found = mmaib.explain(
            model, image, score_thr=0.0, at_most=2, settings=Settings(steps=3)
        )
    assert len(found) == 2
    for one in found:
        assert len(one.box) == 5
        assert one.bits.shape == image.shape[:2]
        assert np.isfinite(one.bits).all()
    drawn = picture(image, found[0])
    points = corners(torch.tensor(found[0].box)).round().int()
    inside = (points >= 0) & (points < points.new_tensor([150, 120]))
    for x, y in points[inside.all(1)].tolist():
        assert drawn[y, x].tolist() == [255, 212, 0]


@pytest.mark.parametrize('name', base_models.rotated())
def test_maps_are_held_against_rotated_boxes(name, tmp_path, new_runner):
    pytest.importorskip('mmrotate')
    model, data = rotated_model(name, tmp_path)
    hook = AttentionEvalHook(ablations=['mirror'])
    runner = new_runner(model, data, [hook], batch_size=2)
    runner.val_evaluator.metrics.append(AttentionMetric())
    metrics = runner.val()
    assert 0 <= metrics['attention/auc'] <= 1
    assert 0 < metrics['attention/area'] < 1
