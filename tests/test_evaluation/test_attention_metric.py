"""What the metric says of a model's maps, held against the same taken by hand
through MMEngine's own loop."""

import math
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from sklearn.metrics import roc_auc_score
from support import classification as cls
from support import detection as det
from support import segmentation as seg

from mmaib.evaluation import AttentionMetric
from mmaib.hooks import AttentionEvalHook
from mmaib.layers import VariationalAttention, capture_attention

GATE = dict(modulation=dict(type='mmaib.InformationGate'))
# in coordinates of the original image; one reaches over its edges
BOXES = ([[3, 5, 20, 30], [40, 10, 90.4, 44.6]], [[-8, -3, 30, 21.0]])
# what is neither object nor background: none, and one beside and in a box
CROWDS = ([], [[20, 9, 44, 40]])


def stirred(model):
    """Maps with contrast, and statistics of a gate that are not 0 and 1."""
    torch.manual_seed(3)
    neck = model.neck
    torch.nn.init.normal_(neck.bottleneck.attention.mean_conv.weight, std=0.2)
    for own in getattr(neck.bottleneck.modulation, 'statistics', []):
        own.mean.normal_()
        own.var.uniform_(0.5, 2)
    return model.eval()


def detector(bottleneck=GATE, **fields):
    cfg = det.shrink(det.aib_config('aib'))
    cfg.model.test_draws = 'mean'
    cfg.model.update(fields)
    cfg.model.neck.bottleneck = bottleneck
    torch.manual_seed(0)
    return stirred(det.build(cfg))


def detector_inputs():
    """Two images of their own sizes, twice as large as the originals."""
    data = det.inputs(((128, 160), (96, 120)))
    for sample, boxes, crowds in zip(data['data_samples'], BOXES, CROWDS):
        height, width = sample.img_shape
        sample.set_metainfo(
            dict(ori_shape=(height // 2, width // 2), scale_factor=(2.0, 2.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor(boxes)),
            labels=torch.zeros(len(boxes), dtype=torch.long),
        )
        crowds = torch.tensor(crowds).view(-1, 4)
        sample.ignored_instances = InstanceData(
            bboxes=HorizontalBoxes(crowds),
            labels=torch.zeros(len(crowds), dtype=torch.long),
        )
    return data


def inside_boxes(sample, boxes):
    """By the centres of pixels, for corners that are whole numbers."""
    height, width = sample.ori_shape
    rows = torch.arange(height)[:, None] + 0.5
    columns = torch.arange(width) + 0.5
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in torch.tensor(boxes).round().tolist():
        mask |= (rows > top) & (rows < bottom) & (columns > left) & (
            columns < right
        )  # fmt: skip
    return mask


def batches(data, size):
    """The draws of a map depend on what else is in its batch."""
    for start in range(0, len(data['inputs']), size):
        yield {k: v[start : start + size] for k, v in data.items()}


def on_image(x, padded, seen, original):
    """Scaled up to the batch, cut to the image, scaled to the original. At
    its edges an image goes on as it ends."""
    for axis in (0, 1):
        cells = x.shape[axis]
        own = math.ceil(seen[axis] / padded[axis] * cells)
        last = x.narrow(axis, own - 1, 1)
        x = torch.cat([x.narrow(axis, 0, own), *[last] * (cells - own)], axis)
    x = F.interpolate(x[None, None], padded, mode='bilinear')
    x = x[..., : seen[0], : seen[1]]
    return F.interpolate(x, original, mode='bilinear')[0, 0]


def expected_scores(levels, norms, mask, tolerance=15, void=None):
    """Of maps on the original image."""
    known = torch.ones_like(mask) if void is None else ~void
    attention = torch.stack(levels).mean(0)
    height, width = mask.shape
    ys, xs = np.mgrid[:height, :width]
    far = (ys * 2 / (height - 1) - 1) ** 2 + (xs * 2 / (width - 1) - 1) ** 2
    highest = attention[known].max()
    peaks = ((attention == highest) & known).nonzero()
    near = [
        (mask.nonzero() - peak).square().sum(1).min() <= tolerance**2
        for peak in peaks
    ]
    attention, mask, far = attention[known], mask[known], far[known.numpy()]
    norm = torch.stack(norms).mean(0)[known]
    return {
        'auc': roc_auc_score(mask, attention),
        'auc_norm': roc_auc_score(mask, norm),
        'auc_centre': roc_auc_score(mask, -far.round(9)),
        'energy': (attention * mask).sum() / attention.sum(),
        'area': mask.float().mean(),
        'pointing': sum(near) / len(near),
        'catching': 2.0 * ((attention > 0.5) == mask).double().mean() - 1,
        'missing': ((attention > 0.5) != mask).double().mean(),
        'iou': ((attention > 0.5) & mask).sum()
        / ((attention > 0.5) | mask).sum(),
    }


def seen_of(x, padded, seen):
    """A map in pixels so fine that cells and image have no others, without
    the padding."""
    x = x.double().numpy().reshape(x.shape[-2:])
    fine = np.repeat(np.repeat(x, padded[0], 0), padded[1], 1)
    return fine[: seen[0] * x.shape[0], : seen[1] * x.shape[1]]


def bits_of(bits, padded, seen):
    return seen_of(bits, padded, seen).sum() / (padded[0] * padded[1])


def of_maps(maps, index, padded, seen):
    means = [seen_of(m.mean[index], padded, seen) for m in maps]
    return {
        'contrast': mean(float(x.std()) for x in means),
        'saturated': mean(
            float(((x < 0.02) | (x > 0.98)).mean()) for x in means
        ),
    }


def assert_means(found, rows, abs=1e-5):
    for name in {key for row in rows for key in row}:
        values = [float(row[name]) for row in rows if name in row]
        expected = sum(values) / len(values)
        assert found[f'attention/{name}'] == pytest.approx(
            expected, rel=1e-5, abs=abs
        ), name


@pytest.mark.parametrize('draws', ['mean', dict(attention=2, seed=0)])
@pytest.mark.parametrize('batch_size', [1, 2])
def test_a_detectors_maps_against_boxes(new_runner, draws, batch_size):
    model, data = detector(test_draws=draws), detector_inputs()
    hook = AttentionEvalHook()
    runner = new_runner(model, data, [hook], batch_size)
    found = runner.val()
    rows = []
    for batch in batches(data, batch_size):
        with capture_attention(model) as maps:
            samples = det.predict(model, batch)
        assert len(maps) == 5
        padded = samples[0].batch_input_shape
        for i, sample in enumerate(samples):
            mask = inside_boxes(sample, BOXES[len(rows)])
            placed = dict(
                padded=padded, seen=sample.img_shape,
                original=sample.ori_shape,
            )  # fmt: skip
            levels = [on_image(m.mean[i, 0], **placed) for m in maps]
            norms = [on_image(m.norms[0][i, 0], **placed) for m in maps]
            void = inside_boxes(sample, CROWDS[len(rows)]) & ~mask
            row = expected_scores(levels, norms, mask, void=void)
            sizes = padded, sample.img_shape
            bits = sum(bits_of(m.bits[0][i], *sizes) for m in maps)
            row['bits_per_image'] = bits
            rows.append({**row, **of_maps(maps, i, *sizes)})
    assert_means(found, rows)
    assert {k for k in found if k.startswith('attention/')} == {
        f'attention/{name}' for row in rows for name in row
    }
    # the numbers can tell maps from no maps, and one image from two
    assert found['attention/contrast'] > 0.02
    assert abs(rows[0]['auc'] - rows[1]['auc']) > 0.01
    assert 200 < void.sum() < 700
    assert 'base/answer' in found


def test_an_image_without_boxes_counts_for_its_maps_alone(new_runner):
    model, data = detector({}), detector_inputs()
    data['data_samples'][1].gt_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    both = new_runner(model, data, [AttentionEvalHook()]).val()
    alone = {key: value[:1] for key, value in data.items()}
    first = new_runner(model, alone, [AttentionEvalHook()]).val()
    assert both['attention/auc'] == first['attention/auc']
    assert both['attention/contrast'] != first['attention/contrast']
    assert 'attention/bits_per_image' not in both
    # and all of an image in a box
    whole = torch.tensor([[0.0, 0, 60, 48]])
    data['data_samples'][1].gt_instances = InstanceData(bboxes=whole)
    assert new_runner(model, data, [AttentionEvalHook()]).val() == both


def segmentor(bottleneck=GATE, draws='mean', **test_cfg):
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    cfg.model.test_draws = draws
    cfg.model.test_cfg = dict(mode='whole', **test_cfg)
    cfg.model.neck.bottleneck = bottleneck
    torch.manual_seed(0)
    return stirred(seg.build(cfg))


@pytest.mark.parametrize('draws', ['mean', dict(attention=2, seed=0)])
@pytest.mark.parametrize('batch_size', [1, 2])
def test_a_segmentors_shared_map_against_its_foreground(
    new_runner, draws, batch_size
):
    """Of images of 48x64 pixels, padded to 64x64."""
    model, data = segmentor(draws=draws), seg.inputs(((48, 64), (48, 64)))
    hook = AttentionEvalHook(metric=dict(foreground=[1, 3], tolerance=0))
    found = new_runner(model, data, [hook], batch_size).val()
    rows = []
    for batch in batches(data, batch_size):
        with capture_attention(model) as maps:
            samples = seg.predict(model, batch)
        (shared,) = maps
        assert len(shared.norms) == len(shared.bits) == 4
        for i, sample in enumerate(samples):
            labels = sample.gt_sem_seg.data[0]
            mask = (labels == 1) | (labels == 3)
            placed = dict(padded=(64, 64), seen=(48, 64), original=(48, 64))
            norms = [on_image(n[i, 0], **placed) for n in shared.norms]
            level = on_image(shared.mean[i, 0], **placed)
            row = expected_scores([level], norms, mask, tolerance=0)
            sizes = (64, 64), (48, 64)
            row['bits_per_image'] = sum(
                bits_of(b[i], *sizes) for b in shared.bits
            )
            rows.append({**row, **of_maps(maps, i, *sizes)})
    assert_means(found, rows)
    assert found['attention/area'] == pytest.approx(0.4, abs=0.02)


def test_without_a_foreground_maps_alone_are_scored(new_runner):
    model, data = segmentor(), seg.inputs()
    found = new_runner(model, data, [AttentionEvalHook()]).val()
    assert {k for k in found if k.startswith('attention/')} == {
        'attention/contrast', 'attention/saturated',
        'attention/bits_per_image',
    }  # fmt: skip


def test_sliding_windows_are_put_together(new_runner):
    size = (64, 106)
    model = segmentor()
    model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(42, 42))
    model.data_preprocessor.test_cfg = dict(size=size)
    data = seg.inputs((size, size))
    hook = AttentionEvalHook(metric=dict(foreground=[0, 4]))
    found = new_runner(model, data, [hook], batch_size=2).val()
    with capture_attention(model) as maps:
        samples = seg.predict(model, data)
    assert len(maps) == 2  # one a window
    rows = []
    seen = torch.zeros(size)
    for left in (0, 42):
        seen[:, left : left + 64] += 1
    for i, sample in enumerate(samples):
        labels = sample.gt_sem_seg.data[0]
        mask = (labels == 0) | (labels == 4)
        # the map, and the norms of four levels
        placed = torch.zeros(5, *size)
        for window, left in zip(maps, (0, 42)):
            parts = [window.mean, *window.norms]
            for into, part in zip(placed, parts):
                into[:, left : left + 64] += F.interpolate(
                    part[i : i + 1], (64, 64), mode='bilinear'
                )[0, 0]
        level, *norms = placed / seen
        rows.append(expected_scores([level], norms, mask))
        rows[-1]['contrast'] = level.std(correction=0)
    assert_means(found, rows)
    # at most what all windows passed, at least what one did
    bits = [sum(b.sum() for b in window.bits) / 2 for window in maps]
    assert max(bits) < found['attention/bits_per_image'] < sum(bits)


def test_a_classifiers_maps_against_the_boxes_of_its_objects(new_runner):
    """On images of 64 pixels that were resized from 128x96, so that x and y
    are scaled by different factors."""
    model, data, rows = stirred(cls.make()), cls.inputs(size=64), []
    model.neck.bottleneck.attention = VariationalAttention(
        64, logit_norm=True
    ).eval()  # the map is of 2x2
    with capture_attention(model) as maps:
        cls.predict(model, data)
    for index, sample in enumerate(data['data_samples']):
        box = torch.tensor([2, 4, 12, 16 + index])
        mask = torch.zeros(96, 128, dtype=torch.bool)
        mask[6 : 24 + round(1.5 * index), 4:24] = True
        sample.set_metainfo(
            dict(img_shape=(64, 64), ori_shape=(96, 128),
                 gt_bboxes=box.float()[None].numpy())
        )  # fmt: skip
        sizes = (64, 64), (64, 64), (96, 128)
        level = on_image(maps[0].mean[index, 0], *sizes)
        norm = on_image(maps[0].norms[0][index, 0], *sizes)
        row = expected_scores([level], [norm], mask)
        rows.append({**row, **of_maps(maps, index, *sizes[:2])})
    found = new_runner(model, data, [AttentionEvalHook()], batch_size=4).test()
    # positions as far from the centre are rounded
    assert_means(found, rows, abs=1e-3)
    assert 0 < found['attention/iou'] < 1


def test_a_classifiers_maps(new_runner):
    model = stirred(cls.make())
    data = cls.inputs()
    found = new_runner(model, data, [AttentionEvalHook()], 2).val()
    with capture_attention(model) as maps:
        cls.predict(model, data)
    whole = (1, 1), (1, 1)
    assert_means(found, [of_maps(maps, i, *whole) for i in range(4)])
    assert {*found} == {
        'base/answer', 'attention/contrast', 'attention/saturated'
    }  # fmt: skip


def test_a_metric_in_the_evaluator_is_taken_as_it_is(new_runner):
    model, data = detector({}), detector_inputs()
    runner = new_runner(model, data, [AttentionEvalHook()])
    own = AttentionMetric(prefix='maps')
    runner.val_evaluator.metrics.append(own)
    found = runner.val()
    assert {'maps/auc', 'maps/contrast'} < set(found)
    assert not any(name.startswith('attention/') for name in found)


def test_without_the_hook_it_is_told(new_runner):
    model, data = detector({}), detector_inputs()
    runner = new_runner(model, data)
    runner.val_evaluator.metrics.append(AttentionMetric())
    with pytest.raises(RuntimeError, match='AttentionEvalHook.*custom_hooks'):
        runner.val()
