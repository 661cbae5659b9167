"""The per-sample bottleneck where the answer is known, and the targets of
real heads against the base libraries' own predictions."""

import math
from threading import Event, Thread

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch.nn import functional as F

from mmaib.explanations import (
    Place,
    Settings,
    Target,
    per_sample_bottleneck,
    statistics,
)
from mmaib.explanations.baselines import BY_GRADIENT, centre
from mmaib.explanations.explain import frozen, see, targets
from mmaib.explanations.reach import gradients, reach
from mmaib.functional import gate_information

SIZE = (96, 128)


class Identity(torch.nn.Module):
    """A model whose features at the neck are its images."""

    with_neck = False

    def extract_feat(self, images):
        return (images,)


def evidence(features):
    """Depends on rows 2 to 4 and columns 3 to 6 alone."""
    mean = features[0][:, :, 2:5, 3:7].mean((1, 2, 3))
    return torch.nn.functional.logsigmoid((mean - 1.4) * 16)


@pytest.fixture
def known():
    place = Place(Identity())
    images = torch.zeros(1, 3, 12, 16)
    images[:, :, 2:5, 3:7] = 2.0
    target = Target(0, 'patch', 0.99, evidence)
    moments = [(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))]
    return target, place, (images,), images, moments


def test_bits_are_where_the_evidence_is(known):
    kept = per_sample_bottleneck(*known)
    inside = kept.bits[2:5, 3:7].sum()
    assert kept.bits.sum() > 1
    assert inside / kept.bits.sum() > 0.85  # the openness is smoothed
    assert kept.kept > 0.9 > 0.2 > kept.without


def test_without_a_step_the_gate_is_as_open_as_layer_cam_is_high(known):
    kept = per_sample_bottleneck(*known, Settings(steps=0))
    # the same evidence at each position of the patch, none outside it
    openness = torch.full((14, 18), 0.1)
    openness[3:6, 4:8] = 0.9
    openness = openness.unfold(0, 3, 1).unfold(1, 3, 1).mean((2, 3))
    # KL of N(a x, (1 - a)^2) from N(0, 1), at three channels
    variance, square = (1 - openness) ** 2, (openness * known[3][0, 0]) ** 2
    nats = 1.5 * (variance + square - 1 - variance.log()).sum()
    assert kept.bits.sum().item() == pytest.approx(
        nats.item() / math.log(2), rel=1e-4
    )


def test_another_methods_map_is_a_gate_too(known):
    target, _, features, _, moments = known
    kept = {
        name: per_sample_bottleneck(*known, Settings(steps=0, start=name))
        for name in (*BY_GRADIENT, 'centre')
    }
    # a gradient of the patch alone: the three find the same
    for name in BY_GRADIENT:
        assert torch.allclose(kept[name].bits, kept['layer-cam'].bits)
    openness = (
        0.1 + 0.8 * centre(target, (12, 16)) / centre(target, (12, 16)).max()
    )
    padded = F.pad(openness[None, None], (1,) * 4, mode='replicate')
    openness = F.avg_pool2d(padded, 3, 1)
    mean, std = moments[0]
    nats = gate_information(features[0], openness, mean, std).sum()
    assert kept['centre'].bits.sum().item() == pytest.approx(
        nats.item() / math.log(2), rel=1e-4
    )
    with pytest.raises(ValueError, match="start .* 'odam'.*got 'gradcam'"):
        Settings(start='gradcam')


def test_a_price_takes_bits_and_a_seed_repeats(known):
    cheap, dear = (
        per_sample_bottleneck(*known, Settings(beta=beta))
        for beta in (0.01, 100.0)
    )
    assert dear.bits.sum() < 0.8 * cheap.bits.sum()
    again = per_sample_bottleneck(*known, Settings(beta=100.0))
    assert torch.equal(again.bits, dear.bits)


def test_what_speaks_against_is_shut(known):
    _, place, features, images, moments = known

    def not_there(features):
        return torch.nn.functional.logsigmoid(
            4 - features[0][:, :, 2:5, 3:7].mean((1, 2, 3)) * 8
        )

    against = per_sample_bottleneck(
        Target(0, 'absence', 0.01, not_there),
        place, features, images, moments, Settings(beta=0.3), missed=True,
    )  # fmt: skip
    # the openness is smoothed over neighbours
    assert against.bits[:7, 1:9].sum() > 0.95 * against.bits.sum() > 1
    assert against.bits[2:5, 3:7].mean() > 20 * against.bits[8:].mean()
    assert against.kept > 0.5


def test_statistics_are_those_of_all_images():
    place = Place(Identity())
    images = torch.randn(
        5, 3, 4, 6, generator=torch.Generator().manual_seed(0)
    )
    ((mean, std),) = statistics(place, [images[:2], images[2:]])
    assert torch.allclose(mean[:, 0, 0], images.mean((0, 2, 3)), atol=1e-6)
    wanted = images.transpose(0, 1).flatten(1).std(1, correction=0)
    assert torch.allclose(std[:, 0, 0], wanted, atol=1e-5)


def test_a_place_that_is_not_there():
    with pytest.raises(ValueError, match=r"at='necks': Identity has no such"):
        Place(Identity(), 'necks')


def seen_by(model, data, place=None):
    place = place or Place(model)
    one = dict(inputs=data['inputs'][0], data_samples=data['data_samples'][0])
    return place, see(model, place, one)


def small(name):
    """A base library's detector, small, with names of its classes."""
    torch.manual_seed(0)
    init_default_scope('mmdet')
    if name == 'two-stage':
        return det.build(det.shrink(det.plain_config()))
    model = get_config(
        {
            'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
            'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
            'fcos': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
            'detr': 'mmdet::detr/detr_r50_8xb2-150e_coco.py',
        }[name]
    ).model
    model.backbone.update(depth=18, init_cfg=None, frozen_stages=-1)
    channels = [64, 128, 256, 512]
    model.neck.in_channels = channels[-len(model.neck.in_channels) :]
    test = model.get('test_cfg', {})
    test.get('rcnn', test)['score_thr'] = 0.0  # untrained scores are low
    found = MODELS.build(model)
    found.init_weights()
    return found


@pytest.mark.parametrize(
    'name', ['two-stage', 'cascade', 'retinanet', 'fcos', 'detr']
)
def test_a_detection_is_found_again_by_its_head(name):
    model = small(name)
    data = det.inputs((SIZE,))
    with frozen(model):
        place, seen = seen_by(model, data)
        found = targets(model, seen, score_thr=0.0, at_most=3)
        own = model.predict(seen.images, [seen.sample], rescale=False)
        scores = own[0].pred_instances.scores
        for target, score in zip(found, scores):
            again = target.log_scores(seen.received).exp()
            assert again.item() == pytest.approx(target.score, abs=1e-4)
            if name in ('retinanet', 'fcos', 'detr'):
                assert target.score == pytest.approx(score.item(), abs=1e-4)
            kept = per_sample_bottleneck(
                target, place, seen.features, seen.images,
                statistics(place, [seen.images]), Settings(steps=2),
            )  # fmt: skip
            assert kept.bits.shape == seen.images.shape[2:]
            assert torch.isfinite(kept.bits).all()
            assert kept.bits.sum() > 0


@pytest.mark.parametrize('name', ['two-stage', 'cascade', 'retinanet'])
def test_the_part_that_a_score_depends_on_has_the_same_score(name):
    model = small(name)
    with frozen(model):
        place, seen = seen_by(model, det.inputs((SIZE,)))
        for target in targets(model, seen, score_thr=0.0, at_most=4):
            own, slope = gradients(
                target.log_scores, place, seen.features, seen.images
            )
            part = reach(target, place, seen.features, seen.images, slope, own)
            small_part = part.part(seen.features)
            alone = part.log_scores(tuple(small_part))
            assert torch.allclose(alone, own, atol=1e-3)
            cells = sum(x[0, 0].numel() for x in small_part)
            assert cells < sum(x[0, 0].numel() for x in seen.features)
            # nothing outside has a gradient
            for gradient, (rows, columns) in zip(slope, part.windows):
                rest = gradient.clone()
                rest[..., rows, columns] = 0
                assert not rest.any()


def test_a_missed_object_and_what_is_refused():
    model = small('two-stage')
    model.dataset_meta = dict(classes=('a', 'b', 'c', 'd', 'e'))
    with frozen(model):
        _, seen = seen_by(model, det.inputs((SIZE,)))
        box = (8, 8, 40, 40)
        (target,) = targets(model, seen, class_name='c', missed_box=box)
        assert (target.name, target.label) == ('c', 2)
        for given, message in (
            (dict(class_name='f'), "class 'f': the model has a, b, c, d, e"),
            (dict(score_thr=1.1), 'no detection with a score of at least 1.1'),
            (dict(missed_box=box), '--missed needs --as NAME'),
            (
                dict(class_name='a', missed_box=(0, 0, 500, 20)),
                'not a box inside the image of 128 x 96',
            ),
            (
                dict(class_name=5, missed_box=box),  # the background
                '--as: class 5, the head has 5, 0 to 4',
            ),
            (dict(score_thr=0.0, detection=-1), '--detection -1: there are'),
            (dict(point=(1, 1)), '--point: FasterRCNN is a detector'),
            (dict(score_thr=0.0, detection=999), '--detection 999: there are'),
        ):
            with pytest.raises(ValueError, match=message):
                targets(model, seen, **given)
        # however many are explained otherwise
        third = targets(model, seen, score_thr=0.0, at_most=3)[2]
        (one,) = targets(model, seen, score_thr=0.0, at_most=2, detection=2)
        assert torch.equal(one.box, third.box)
        # padding is not of the image
        cut = dict(img_shape=(96, 100), ori_shape=(96, 100))
        seen.sample.set_metainfo(cut)
        given = dict(class_name='a', missed_box=(0, 0, 110, 20))
        with pytest.raises(ValueError, match='inside the image of 100 x 96'):
            targets(model, seen, **given)


def test_regions_of_a_segmentor():
    torch.manual_seed(0)
    model = seg.make(seg.UPERNET / seg.BEIT)
    with frozen(model):
        place, seen = seen_by(model, seg.inputs(((64, 64),)))
        found = targets(model, seen)
        logits = model.decode_head.predict(
            seen.received, [seen.sample.metainfo], model.test_cfg
        )
        wanted = logits[0].argmax(0)
        assert sum(int(t.region.sum()) for t in found) == wanted.numel()
        (one,) = targets(model, seen, point=(10, 20))
        assert one.label == wanted[20, 10]
        assert one.region[20, 10]
        log = logits[0].log_softmax(0)[one.label][one.region].mean()
        assert one.score == pytest.approx(log.exp().item(), rel=1e-4)
        kept = per_sample_bottleneck(
            one, place, seen.features, seen.images,
            statistics(place, [seen.images]), Settings(steps=2),
        )  # fmt: skip
        assert kept.bits.sum() > 0
        cut = dict(img_shape=(40, 64), ori_shape=(40, 64))
        seen.sample.set_metainfo({**cut, 'pad_shape': (64, 64)})
        own = targets(model, seen)
        assert sum(int(t.region.sum()) for t in own) == 40 * 64
        assert not any(t.region[40:].any() for t in own)
        with pytest.raises(ValueError, match='the image of 64 x 40 pixels'):
            targets(model, seen, point=(10, 50))


def test_one_logit_is_of_two_classes():
    torch.manual_seed(0)
    model = seg.make(seg.UPERNET / seg.BEIT)
    head = model.decode_head
    head.conv_seg = torch.nn.Conv2d(head.conv_seg.in_channels, 1, 1)
    head.out_channels, head.num_classes, head.threshold = 1, 2, 0.45
    with frozen(model):
        _, seen = seen_by(model, seg.inputs(((64, 64),)))
        logits = head.predict(
            seen.received, [seen.sample.metainfo], model.test_cfg
        )[0, 0]
        wanted = logits.sigmoid() > head.threshold
        found = {t.label: t for t in targets(model, seen)}
        assert {*found} == {*wanted.unique().int().tolist()}
        for label, target in found.items():
            assert torch.equal(target.region, wanted == label)
            log = torch.nn.functional.logsigmoid(logits * (2 * label - 1))
            mean = log[target.region].mean().exp().item()
            assert target.score == pytest.approx(mean, rel=1e-4)


def test_a_class_and_not_another():
    torch.manual_seed(0)
    model = cls.make(cls.RESNET)
    with frozen(model):
        place, seen = seen_by(model, cls.inputs(), Place(model, 'backbone'))
        logits = model.head(seen.received)[0]
        (own,) = targets(model, seen)
        assert own.label == logits.argmax()
        (two,) = targets(model, seen, class_name='1', against='0')
        wanted = (logits[1] - logits[0]).sigmoid().item()
        assert two.score == pytest.approx(wanted, abs=1e-5)
        kept = per_sample_bottleneck(
            own, place, seen.features, seen.images,
            statistics(place, [seen.images]), Settings(steps=2),
        )  # fmt: skip
        assert kept.bits.sum() > 0
        with pytest.raises(ValueError, match='class 99: the head has'):
            targets(model, seen, class_name='99')
        with pytest.raises(ValueError, match='--against class 1: that is'):
            targets(model, seen, class_name='1', against='1')


def test_heads_of_several_labels():
    fields = dict(num_classes=10, in_channels=64)
    model = cls.make(
        {**cls.RESNET, 'head': dict(type='MultiLabelLinearClsHead', **fields)}
    )
    with frozen(model):
        _, seen = seen_by(model, cls.inputs(), Place(model, 'backbone'))
        (own,) = targets(model, seen)
        base = model.head.predict(seen.received, [seen.sample])[0].pred_score
        assert own.label == base.argmax()
        assert own.score == pytest.approx(base.max().item(), rel=1e-4)
        model.head.forward = lambda feats: dict(a=feats, b=feats)
        with pytest.raises(ValueError, match='gives dict, not the logits'):
            targets(model, seen)


def test_nothing_of_the_model_changes():
    model = small('two-stage').train()
    model.roi_head.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with frozen(model):
        place, seen = seen_by(model, det.inputs((SIZE,)))
        (target,) = targets(model, seen, score_thr=0.0, at_most=1)
        per_sample_bottleneck(
            target, place, seen.features, seen.images,
            statistics(place, [seen.images]), Settings(steps=2),
        )  # fmt: skip
    assert model.training
    assert model.neck.training
    assert not model.roi_head.training
    assert all(p.requires_grad for p in model.neck.parameters())
    assert all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items()
    )
    assert all(p.grad is None for p in model.parameters())


def test_threads_take_turns():
    model, began, inside = Identity().train(), Event(), []

    def other():
        began.set()
        with frozen(model):
            inside.append(model.training)

    with frozen(model):
        thread = Thread(target=other)
        thread.start()
        began.wait()
        thread.join(0.2)
        assert not inside
    thread.join()
    assert inside == [False]
    assert model.training
