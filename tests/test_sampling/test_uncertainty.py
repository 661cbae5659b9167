"""Uncertainty of predictions, held against all draws laid side by side."""

import copy
import json
import pickle
import weakref

import pytest
import torch
from mmengine.config import Config
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmaib.registry import METRICS
from mmaib.sampling.draws import Draws
from mmaib.sampling.uncertainty import combine, predictive


def brute_force(drawn):
    """Mean probabilities, entropy and mutual information of (L, N, C, ...)."""
    probs = drawn.double().softmax(2)
    mean = probs.mean(0)
    entropy = -(mean * mean.log()).sum(1)
    of_draws = -(probs * probs.log()).sum(2)
    return mean, entropy, entropy - of_draws.mean(0)


@pytest.mark.parametrize('shape', [(6, 3, 5), (4, 2, 7, 3, 4)])
def test_sums_are_those_of_all_draws(shape):
    drawn = 3 * torch.randn(shape)
    mean, entropy, mutual = brute_force(drawn)
    found = predictive(iter(drawn))
    for ours, expected in [
        (found.logits.softmax(1), mean),
        (found.entropy, entropy),
        (found.mutual_information, mutual),
    ]:
        torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)


def test_one_channel_is_two_classes():
    drawn = torch.randn(4, 2, 1, 3, 3)
    both = torch.cat([torch.zeros_like(drawn), drawn], dim=2)
    mean, entropy, mutual = brute_force(both)
    found = predictive(drawn)
    assert found.logits.shape == (2, 1, 3, 3)
    torch.testing.assert_close(
        found.logits.sigmoid().double(), mean[:, 1:], atol=1e-6, rtol=0
    )
    assert torch.allclose(found.entropy.double(), entropy, atol=1e-6)
    assert torch.allclose(found.mutual_information.double(), mutual, atol=1e-6)


def test_draws_that_agree_and_draws_that_do_not():
    sure = torch.tensor([[100.0, 0, 0]])
    same = predictive([sure, sure])
    assert same.entropy < 1e-30
    assert same.mutual_information == 0
    opposed = predictive([sure, sure.roll(1, 1)])
    log2 = torch.tensor(2.0).log()
    assert torch.allclose(opposed.mutual_information, log2)
    # what no draw thinks of has a finite logit
    assert opposed.logits.isfinite().all()
    half = predictive([sure.half(), sure.half()])
    assert half.logits.dtype == torch.float32


@pytest.mark.parametrize('classes', [1, 7])
def test_equal_draws_do_not_disagree_by_less_than_nothing(classes):
    """The mean of three equal numbers need not be that number."""
    logits = 4 * torch.randn(2000, classes)
    found = predictive([logits] * 3).mutual_information
    assert found.min() == 0
    assert found.max() < 1e-5


def test_a_draw_is_let_go_before_the_next():
    alive = []

    def draws():
        for _ in range(4):
            assert sum(one() is not None for one in alive) == 0
            logits = torch.randn(2, 3, 5)
            alive.append(weakref.ref(logits))
            yield logits
            del logits

    predictive(draws())
    assert len(alive) == 4


def test_no_draws():
    with pytest.raises(ValueError, match='no draws'):
        predictive([])


def test_what_is_not_asked_for_is_not_made():
    def never():
        raise AssertionError

    assert combine(iter(never, 0), lambda: 'mean') == ('mean', {})
    drawn = torch.randn(3, 2, 4)
    with Draws(latent=3, average='probabilities').open():
        logits, measures = combine(drawn, never)
    assert not measures
    assert torch.allclose(logits.exp(), drawn.softmax(2).mean(0))


# Base libraries
LATENTS = dict(latent=6, seed=3)


def asked(model, draws, **options):
    model.test_draws = {**draws, **options}
    return model


def classifier():
    model = cls.make().eval()
    torch.nn.init.constant_(model.head.encoder.std.bias, 30.0)
    for parameter in model.head.fc.parameters():
        parameter.data *= 0.01  # or each image would be sure of its class
    return model


@pytest.mark.parametrize('draws', [LATENTS, dict(attention=2, latent=3)])
def test_a_classifier(draws):
    model, data = classifier(), cls.inputs(4)
    plain = cls.predict(asked(model, draws), copy.deepcopy(data))
    images = model.data_preprocessor(copy.deepcopy(data))['inputs']
    with torch.no_grad():
        mean, *expected = brute_force(cls.drawn_logits(model, images))
    asked(model, draws, uncertainty=True)
    found = cls.predict(model, copy.deepcopy(data))
    for i, (sample, other) in enumerate(zip(found, plain)):
        assert torch.equal(sample.pred_score, other.pred_score)
        measures = sample.entropy, sample.mutual_information
        for ours, values in zip(measures, expected):
            assert ours.item() == pytest.approx(values[i].item(), abs=1e-5)
        assert sample.mutual_information > 1e-4
        assert 'entropy' not in other
    asked(model, draws, average='probabilities')
    for sample, probs in zip(cls.predict(model, data), mean):
        assert torch.allclose(sample.pred_score.double(), probs, atol=1e-6)
        assert 'entropy' not in sample


def segmentor(**fields):
    model = seg.make(**fields).eval()
    torch.nn.init.constant_(model.decode_head.encoder.std.bias, 6.0)
    return model


def drawn_at_full_size(model, images, metas):
    """All draws at once, (L, N, C, H, W): what the model never holds."""
    with torch.no_grad(), model.test_draws.open():
        logits = model.decode_head.forward(model.extract_feat(images))
        parts = [
            model.decode_head.predict_by_feat(one, metas)
            for one in logits.split(len(images))
        ]
    return torch.stack(parts)


@pytest.mark.parametrize('draws', [LATENTS, dict(attention=2, latent=2)])
def test_a_segmentor(draws):
    model, data = segmentor(test_cfg=dict(mode='whole')), seg.inputs()
    plain = seg.predict(asked(model, draws), copy.deepcopy(data))
    packed = model.data_preprocessor(copy.deepcopy(data))
    metas = [sample.metainfo for sample in packed['data_samples']]
    drawn = drawn_at_full_size(model, packed['inputs'], metas)
    mean, *expected = brute_force(drawn)
    asked(model, draws, uncertainty=True)
    for i, (sample, other) in enumerate(
        zip(seg.predict(model, copy.deepcopy(data)), plain)
    ):
        assert torch.equal(sample.seg_logits.data, other.seg_logits.data)
        for name, values in zip(('entropy', 'mutual_information'), expected):
            ours = sample.get(name).data
            assert ours.shape == (1, *seg.SIZE)
            torch.testing.assert_close(
                ours[0].double(), values[i], atol=1e-5, rtol=0
            )
        assert sample.mutual_information.data.mean() > 1e-4
        assert 'entropy' not in other
    asked(model, draws, uncertainty=True, average='probabilities')
    for sample, probs in zip(seg.predict(model, data), mean):
        ours = sample.seg_logits.data.double().softmax(0)
        torch.testing.assert_close(ours, probs, atol=1e-5, rtol=0)
        assert torch.equal(
            sample.pred_sem_seg.data[0], sample.seg_logits.data.argmax(0)
        )
    assert model._measured is None


def test_maps_lie_where_the_prediction_does():
    """Padding cut off, mirrored back, at the size of the original."""
    model, data = segmentor(test_cfg=dict(mode='whole')), seg.inputs()
    for sample in data['data_samples']:
        sample.set_metainfo(
            dict(ori_shape=(40, 50), padding_size=[0, 4, 0, 14],
                 flip=True, flip_direction='horizontal')
        )  # fmt: skip
    model.data_preprocessor.test_cfg = None
    asked(model, LATENTS, uncertainty=True)
    packed = model.data_preprocessor(copy.deepcopy(data))
    metas = [sample.metainfo for sample in packed['data_samples']]
    drawn = drawn_at_full_size(model, packed['inputs'], metas)
    _, entropy, _ = brute_force(drawn)
    entropy = entropy[:, None, :50, :60].flip(-1)
    expected = torch.nn.functional.interpolate(
        entropy, (40, 50), mode='bilinear', align_corners=False
    )
    for sample, values in zip(seg.predict(model, data), expected):
        torch.testing.assert_close(
            sample.entropy.data.double(), values, atol=1e-5, rtol=0
        )


def test_windows_that_overlap_are_averaged():
    model = asked(segmentor(), LATENTS, uncertainty=True)
    assert model.test_cfg.mode == 'slide'
    model.data_preprocessor.test_cfg = None
    data = seg.inputs(((64, 106),))
    total, count = torch.zeros(64, 106).double(), torch.zeros(106)
    images = model.data_preprocessor(copy.deepcopy(data))['inputs']
    for left in (0, 42):
        window = images[..., left : left + 64]
        meta = [dict(img_shape=window.shape[2:])]
        _, entropy, _ = brute_force(drawn_at_full_size(model, window, meta))
        total[:, left : left + 64] += entropy[0]
        count[left : left + 64] += 1
    (sample,) = seg.predict(model, data)
    assert torch.allclose(
        sample.entropy.data[0].double(), total / count, atol=1e-5
    )


class Held(TorchDispatchMode):
    """The most values alive at once in tensors at the size of the image."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            shape = getattr(tensor, 'shape', ())
            if len(shape) == 4 and shape[2:] == seg.SIZE:
                self.alive.append(weakref.ref(tensor))
        self.alive = [one for one in self.alive if one() is not None]
        self.most = max(self.most, sum(one().numel() for one in self.alive))
        return out


@pytest.mark.parametrize('average', ['logits', 'probabilities'])
def test_no_copy_for_each_draw_at_the_size_of_the_image(average):
    model = segmentor(test_cfg=dict(mode='whole'))
    images = torch.randn(1, 3, *seg.SIZE)
    peaks = []
    for count in (2, 8):
        asked(model, dict(latent=count), uncertainty=True, average=average)
        with torch.no_grad(), Held() as held:
            model.predict(images)
        peaks.append(held.most)
    assert peaks[0] == peaks[1] < 8 * 5 * 64 * 64
    # all at once would be seen
    with torch.no_grad(), Held() as held:
        metas = [dict(img_shape=seg.SIZE)]
        drawn_at_full_size(model, images, metas)
    assert held.most >= 8 * 5 * 64 * 64


def detector():
    model = det.detector(test_draws='mean').eval()
    for encoder in ('cls_encoder', 'reg_encoder'):
        std = getattr(model.roi_head.bbox_head, encoder).std
        torch.nn.init.constant_(std.bias, 5.0)
    return model


def scaled_inputs():
    data = det.inputs()
    for sample in data['data_samples']:
        sample.set_metainfo(dict(scale_factor=(2.0, 0.5)))
    return data


@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('draws', [LATENTS, dict(attention=2, latent=2)])
def test_a_detector(draws, agnostic):
    model, data = detector(), scaled_inputs()
    head = model.roi_head.bbox_head
    if agnostic:
        head.reg_class_agnostic = True
        head.fc_reg = torch.nn.Linear(head.fc_reg.in_features, 4)
    plain = det.predict(asked(model, draws), copy.deepcopy(data))
    seen = {}
    own = type(model.roi_head)._bbox_forward

    def keep(self, x, rois):
        found = own(self, x, rois)
        seen.update(rois=rois, drawn=found['drawn'])
        return found

    asked(model, draws, uncertainty=True, rois='all')
    model.roi_head._bbox_forward = keep.__get__(model.roi_head)
    samples = det.predict(model, copy.deepcopy(data))
    scores, deltas = (
        part.unflatten(0, (-1, len(seen['rois']))) for part in seen['drawn']
    )
    assert len(scores) == model.test_draws.count
    _, entropy, _ = brute_force(scores)
    for i, (sample, other) in enumerate(zip(samples, plain)):
        found = sample.pred_instances
        for name in ('bboxes', 'scores', 'labels'):
            assert torch.equal(found[name], other.pred_instances[name])
        assert 'entropy' not in other.pred_instances
        here = seen['rois'][:, 0] == i
        rois = seen['rois'][here]

        def decoded(deltas, rois=rois, sample=sample):
            classes = deltas.size(1) // 4
            boxes = head.bbox_coder.decode(
                rois[:, 1:].repeat_interleave(classes, 0),
                deltas.reshape(-1, 4),
                max_shape=sample.img_shape,
            )
            boxes = boxes / torch.tensor([2.0, 0.5, 2.0, 0.5])
            return boxes.unflatten(0, (-1, classes))

        boxes = torch.stack([decoded(one[here]) for one in deltas])
        mean = decoded(deltas.mean(0)[here])
        probs = scores[:, here].softmax(2)
        assert len(found) > 5
        for k in range(len(found)):
            label = found.labels[k]
            column = 0 if agnostic else label
            off = (mean[:, column] - found.bboxes[k]).abs().sum(1)
            off += (
                scores.mean(0)[here].softmax(1)[:, label] - found.scores[k]
            ).abs()
            row = off.argmin()
            assert off[row] < 1e-3
            for ours, expected in [
                (found.bbox_std[k], boxes[:, row, column].std(0)),
                (found.score_std[k], probs[:, row, label].std(0)),
                (found.entropy[k], entropy[here][row].float()),
            ]:
                torch.testing.assert_close(
                    ours, expected, rtol=1e-3, atol=1e-4
                )
        assert found.bbox_std.max() > 0.1
    asked(model, draws, average='probabilities')
    del model.roi_head._bbox_forward
    model.roi_head.test_cfg.score_thr = 0.0
    for sample in det.predict(model, data):
        mean = scores.softmax(2).mean(0)[..., :-1]
        gap = sample.pred_instances.scores[:, None] - mean.flatten()
        assert gap.abs().amin(1).max() < 1e-5


def test_an_image_without_proposals_beside_one_with():
    model, data = detector(), scaled_inputs()
    asked(model, LATENTS, uncertainty=True)
    own = model.rpn_head.predict

    def first_alone(*args, **kwargs):
        found = own(*args, **kwargs)
        return [found[0], found[1][:0]]

    model.rpn_head.predict = first_alone
    full, empty = (s.pred_instances for s in det.predict(model, data))
    assert len(full)
    assert len(empty) == 0
    assert empty.bbox_std.shape == (0, 4)
    model.rpn_head.predict = lambda *a, **k: [f[:0] for f in own(*a, **k)]
    for sample in det.predict(model, scaled_inputs()):
        found = sample.pred_instances
        assert len(found) == 0
        assert {'score_std', 'bbox_std', 'entropy'} <= {*found.keys()}


def test_stds_of_a_mask_rcnn_are_scaled_as_its_boxes(tmp_path):
    from mmdet.testing import demo_mm_inputs

    path = tmp_path / 'config.py'
    path.write_text("""
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    type='mmaib.AIBFasterRCNN',
    roi_head=dict(type='mmaib.AIBRoIHead',
                  bbox_head=dict(type='mmaib.AIBShared2FCBBoxHead')))
""")
    cfg = det.shrink(Config.fromfile(path))
    cfg.model.roi_head.mask_roi_extractor.out_channels = 32
    cfg.model.roi_head.mask_head.update(
        in_channels=32, conv_out_channels=32, num_classes=5
    )
    model = det.build(cfg)
    torch.nn.init.constant_(model.roi_head.bbox_head.reg_encoder.std.bias, 5.0)
    asked(model, LATENTS, uncertainty=True)
    data = demo_mm_inputs(1, [(3, 96, 120)], num_classes=5, with_mask=True)
    stds = []
    for scale in (1.0, 2.0):
        scaled = copy.deepcopy(data)
        scaled['data_samples'][0].set_metainfo(dict(scale_factor=(scale, 1.0)))
        (sample,) = det.predict(model, scaled)
        stds.append(sample.pred_instances.bbox_std)
    factor = torch.tensor([2.0, 1, 2, 1])
    assert torch.allclose(stds[0], stds[1] * factor, rtol=1e-3)
    assert stds[0].max() > 0.05


@pytest.mark.parametrize('library', [cls, seg, det])
def test_dumps_carry_it(library, new_runner, tmp_path):
    model = {cls: classifier, seg: segmentor, det: detector}[library]()
    asked(model, LATENTS, uncertainty=True)
    data = scaled_inputs() if library is det else library.inputs()
    kind = 'mmdet.DumpDetResults' if library is det else 'DumpResults'
    dump = dict(type=kind, out_file_path=str(tmp_path / 'dump.pkl'))
    new_runner(model, data, test_evaluator=dump).test()
    with open(tmp_path / 'dump.pkl', 'rb') as file:
        samples = pickle.load(file)
    assert len(samples) == len(data['data_samples'])
    for sample in samples:
        where = sample['pred_instances'] if library is det else sample
        names = ['mutual_information', 'entropy']
        if library is det:
            names = ['score_std', 'bbox_std', 'entropy']
        assert {*names} <= {*where}


def test_the_json_of_coco_carries_it(tmp_path):
    model = detector()
    asked(model, LATENTS, uncertainty=True)
    samples = [s.to_dict() for s in det.predict(model, scaled_inputs())]
    for i, sample in enumerate(samples):
        sample.update(img_id=7 + i, instances=[])
    metric = METRICS.build(
        dict(
            type='mmaib.UncertaintyCocoMetric',
            format_only=True,
            outfile_prefix=str(tmp_path / 'found'),
        )
    )
    count = model.roi_head.bbox_head.num_classes
    metric.dataset_meta = dict(classes=[f'{c}' for c in range(count)])
    metric.process({}, samples)
    metric.evaluate(len(samples))
    rows = iter(json.loads((tmp_path / 'found.bbox.json').read_text()))
    for sample in samples:
        found = sample['pred_instances']
        for i in range(len(found['scores'])):
            row = next(rows)
            assert row['image_id'] == sample['img_id']
            for name in ('score', 'score_std', 'entropy', 'bbox_std'):
                own = found['scores' if name == 'score' else name][i]
                assert row[name] == pytest.approx(own.tolist())
    assert next(rows, None) is None
    del samples[0]['pred_instances']['entropy']
    with pytest.raises(ValueError, match='set uncertainty=True'):
        metric.process({}, samples)


# What cannot be
@pytest.mark.parametrize(
    ('draws', 'match'),
    [
        (dict(uncertainty=True), 'uncertainty=True.*needs two or more'),
        (dict(latent=1, uncertainty=True), 'latent=8, uncertainty=True'),
        (dict(latent='mean', uncertainty=True), 'two or more'),
        (dict(average='probabilities'), 'needs draws to average'),
        (dict(latent=2, average='scores'), 'average must be one of'),
        (dict(latent=2, uncertainty='yes'), 'uncertainty must be one of'),
        (dict(latent=2, rois='few'), 'rois must be one of.*all.*kept'),
        (dict(latent='mean', rois='all'), 'rois=.*needs draws'),
        (dict(latent=2, rois='kept'), 'rois=.*RoI head'),
    ],
)
def test_what_cannot_be_told_is_refused(draws, match):
    with pytest.raises(ValueError, match=match):
        cls.make(test_draws=draws)


def test_training_has_no_such_field():
    with pytest.raises(ValueError, match='train_draws must be'):
        cls.make(train_draws=dict(latent=2, uncertainty=True))


def test_models_that_draw_nothing_are_refused():
    draws = dict(latent=8, uncertainty=True)
    plain = dict(cls.RESNET, type='mmaib.AIBImageClassifier')
    with pytest.raises(ValueError, match=r'test_draws\.latent=8 needs'):
        cls.make(plain, test_draws=draws)
    cfg = det.shrink(det.plain_config())
    cfg.model.update(
        type='mmaib.WithAuxLosses', base='FasterRCNN', test_draws=draws
    )
    with pytest.raises(ValueError, match='cannot average draws'):
        det.build(cfg)


def test_several_sigmoids_are_refused():
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    cfg.model.decode_head.loss_decode.use_sigmoid = True
    seg.build(cfg)
    cfg.model.test_draws = dict(attention=2, uncertainty=True)
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        seg.build(cfg)


def test_heads_whose_probabilities_are_their_own_are_refused():
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    del cfg.model.test_draws
    cfg.model.test_draws = dict(attention=2, uncertainty=True)
    cfg.model.neck.bottleneck.beta = 0.1
    cfg.model.decode_head = dict(
        type='DAHead', in_channels=32, in_index=3, channels=16,
        pam_channels=4, num_classes=5,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r'DAHead, which has a predict\(\)'):
        seg.build(cfg)
    model = detector()
    model.roi_head.bbox_head.loss_cls.custom_cls_channels = True
    with pytest.raises(ValueError, match='needs scores by softmax'):
        asked(model, LATENTS, uncertainty=True)
