"""The scores of made maps against brute force, and of real models."""

import math
import sys

import numpy as np
import pytest
import torch
from support import REPOSITORY
from support import classification as cls
from support import detection as det
from support import segmentation as seg

from mmaib.evaluation.map_geometry import whole_maps
from mmaib.layers import CapturedMap, capture_attention

sys.path.insert(0, str(REPOSITORY / 'tools' / 'experiments'))
import map_stability
from map_stability import (
    Comparison,
    between,
    centred_cosine,
    compare_modified,
    compared,
    cosine,
    scores_of,
    share,
    summary,
)
from modifications import modified


def brute_force(a, b, centred=False):
    a, b = a.flatten().tolist(), b.flatten().tolist()
    if centred:
        a, b = ([x - sum(m) / len(m) for x in m] for m in (a, b))
    product = sum(x * y for x, y in zip(a, b))
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return product / norms if norms > 1e-9 else 0.0


MAP = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
MADE = {
    'perfect': MAP,
    'uniform': torch.full((8, 8), 0.7),
    'inverted': 1 - MAP,
    'shifted': MAP.roll(2, 1),
    'zero': torch.zeros(8, 8),
}


@pytest.mark.parametrize('name', MADE)
def test_made_maps_against_brute_force(name):
    other = MADE[name]
    row = compared([MAP], [other], 1.0)
    assert row.cosine == pytest.approx(brute_force(MAP, other))
    assert row.centred == pytest.approx(brute_force(MAP, other, True))


def test_padding_is_no_part_of_a_map():
    """Of 8x8 cells of 4 pixels, 5x3 are the image's."""
    meta = dict(
        img_shape=(32, 32), ori_shape=(40, 24), scale_factor=(0.5, 0.5)
    )
    (plain,) = scores_of([CapturedMap(MAP[None, None])], 0, meta)
    assert torch.equal(plain, MAP[:5, :3])
    anchors = MAP.round()[None, None]
    both = CapturedMap(MAP[None, None], anchors)
    assert torch.equal(scores_of([both], 0, meta)[0], MAP.round()[:5, :3])
    (arrays,) = scores_of([CapturedMap(MAP[None, None])], 0, {})
    assert torch.equal(arrays, MAP)


def test_what_the_made_maps_should_score():
    rows = {name: compared([MAP], [m], 1.0) for name, m in MADE.items()}
    assert rows['perfect'][1:] == (1, pytest.approx(1))
    assert rows['inverted'].centred == pytest.approx(-1)
    assert abs(rows['shifted'].centred) < 0.5
    assert rows['zero'][1:] == rows['uniform'][2:] * 2 == (0, 0)
    # the trap: a map that looks nowhere in particular never changes
    constant = compared([MADE['uniform']], [MADE['uniform']], 1.0)
    assert constant[1:] == (1, 0)


def test_levels_are_averaged():
    row = compared([MAP, MAP], [MAP, 1 - MAP], 1.0)
    assert row.centred == pytest.approx(0)
    assert row.cosine == pytest.approx((1 + brute_force(MAP, 1 - MAP)) / 2)
    assert cosine(MAP, 3 * MAP) == 1
    assert centred_cosine(MAP, 3 * MAP + 5) == pytest.approx(1, abs=1e-6)


def test_the_score_counts_images_whose_answer_stays():
    rows = [
        Comparison(1.0, 0.97, 0.5),
        Comparison(1.0, 0.92, 0.3),
        Comparison(0.6, 0.5, -0.2),
        Comparison(0.4, 0.99, 1.0),  # another answer
    ]
    found = summary([[row] for row in rows])
    assert found['same answer'].value == 0.75
    scores = [found[f'score {tau}'].value for tau in (0.85, 0.9, 0.95)]
    assert scores == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert found['centred'].value == pytest.approx(0.2)
    assert found['centred'].number == 3
    # the same in one image more than once
    assert summary([rows])['score 0.9'].value == pytest.approx(2 / 3)
    none = summary([[Comparison(1.0, None, None)]])
    assert none['same answer'].value == 1
    assert none['score 0.9'] == (None, None, None, 0)


def test_an_answer_that_agrees_by_half_is_the_same():
    """And a map must be closer than tau."""
    rows = [[Comparison(0.5, 0.9, 0.3)], [Comparison(0.49, 0.9, 1.0)]]
    found = summary(rows)
    assert found['same answer'].value == 0.5
    assert (found['centred'].value, found['centred'].number) == (0.3, 1)
    scores = [found[f'score {tau}'].value for tau in (0.85, 0.9, 0.95)]
    assert scores == [1, 0, 0]


def test_the_interval_is_that_of_a_loop_over_resampled_images():
    rng = np.random.default_rng(3)
    hits, kept = rng.random((30, 4)), rng.random((30, 4)) < 0.6
    found = share(hits, kept)
    chosen = np.random.default_rng(0).integers(30, size=(1000, 30))
    means = []
    for images in chosen:
        values = [hits[i, j] for i in images for j in range(4) if kept[i, j]]
        means.append(sum(values) / len(values))
    expected = np.percentile(means, (2.5, 97.5))
    assert found[1:3] == pytest.approx(tuple(expected))
    assert found.value == pytest.approx(hits[kept].mean())
    assert found.number == kept.sum()
    assert found.low < found.value < found.high


def one_of(data):
    """The first image of a batch."""
    return {name: values[0] for name, values in data.items()}


def stirred(model):
    bottleneck = model.neck.bottleneck
    torch.nn.init.normal_(bottleneck.attention.mean_conv.weight, std=0.5)
    return model.eval()


CASES = {
    'detector': (
        lambda: det.detector('aib-qt', test_draws='mean'),
        lambda: det.inputs(((96, 128),)),
        'pred_instances',
    ),
    'segmentor': (
        lambda: seg.make(test_draws='mean'),
        lambda: seg.inputs(((64, 96),)),
        'pred_sem_seg',
    ),
    'classifier': (cls.make, lambda: cls.inputs(1, 256), 'pred_score'),
}


@pytest.mark.parametrize('name', CASES)
def test_a_model_against_its_own_answers_one_by_one(name):
    build, inputs, answer = CASES[name]
    model, data = stirred(build()), one_of(inputs())
    patches = [torch.randint(256, (3, 8, 8), dtype=torch.uint8)]
    rows, deviation = compare_modified(model, data, 0, patches, 0.0)
    assert len(rows) == 10
    assert 0 < deviation < 0.5
    assert all(0 <= row.agreement <= 1 for row in rows.values())
    assert all(0 < row.cosine <= 1 for row in rows.values())
    assert len({row.centred for row in rows.values()}) > 3

    def alone(image):
        batch = dict(inputs=[image], data_samples=[data['data_samples']])
        with capture_attention(model) as maps, torch.no_grad():
            (sample,) = model.test_step(batch)
        assert answer in sample
        # a segmentor's window slides over the image
        whole = whole_maps(model, maps, sample.metainfo)
        return [m.quantized[0, 0] for m in whole]

    image = data['inputs']
    changed = modified(image, torch.Generator().manual_seed(0), patches)
    before, after = alone(image), alone(changed['patch p=8'])
    expected = [brute_force(a, b) for a, b in zip(before, after)]
    assert rows['patch p=8'].cosine == pytest.approx(
        sum(expected) / len(expected), abs=1e-4
    )


def detection(boxes, labels, scores):
    return dict(
        pred_instances=dict(
            bboxes=torch.tensor(boxes), labels=torch.tensor(labels),
            scores=torch.tensor(scores),
        )
    )  # fmt: skip


def test_answers_of_the_three_tasks():
    first = detection([[0.0, 0, 9, 9], [20, 20, 30, 30]], [0, 1], [0.9, 0.1])
    moved = detection([[0.0, 0, 9, 8], [50, 50, 60, 60]], [0, 1], [0.9, 0.2])
    assert between(first, moved) == 1  # the others score too low
    assert between(first, moved, score_thr=0) == 0.5
    another = detection([[0.0, 0, 9, 8]], [1], [0.9])
    assert between(first, another) == 0
    # more classes than before are another answer, as fewer are
    more = detection([[0.0, 0, 9, 9], [0, 0, 9, 8]], [0, 1], [0.9, 0.9])
    assert between(first, more) == between(more, first) == 0
    masks = [
        dict(pred_sem_seg=dict(data=torch.tensor([[labels]])))
        for labels in ([0, 1], [0, 0])
    ]
    assert between(*masks) == 0.25
    scores = [
        dict(pred_score=torch.tensor(s)) for s in ([0.1, 0.9], [0.4, 0.6])
    ]
    assert between(*scores) == 1
    assert between(scores[0], dict(pred_score=torch.tensor([0.6, 0.4]))) == 0


def test_detections_count_from_the_score_on(monkeypatch):
    asked = []
    monkeypatch.setattr(
        map_stability, 'between', lambda *a: asked.append(a[2]) or 1.0
    )
    model = cls.make(cls.RESNET).eval()
    compare_modified(model, one_of(cls.inputs(1)), 0, score_thr=0.7)
    assert {*asked} == {0.7}


def test_a_model_without_a_map_says_so():
    model = cls.make(cls.RESNET).eval()
    rows, deviation = compare_modified(model, one_of(cls.inputs(1)), 0)
    assert deviation is None
    assert {row[1:] for row in rows.values()} == {(None, None)}
