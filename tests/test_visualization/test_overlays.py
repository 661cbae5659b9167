from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import segmentation as seg

from mmaib.evaluation import AttentionMetric
from mmaib.evaluation.map_geometry import (
    bits_on_image,
    map_on_image,
    mean_over_levels,
    rectangles_on_image,
    spread,
    whole_maps,
    windows,
)
from mmaib.functional import rectangle_window
from mmaib.layers import CapturedMap
from mmaib.visualization import overlays as visualization
from mmaib.visualization.overlays import (
    attention_figure,
    classifier_input,
    finest_quantized,
    outlined,
    picture,
)


def test_a_map_lands_where_it_belongs_without_the_padding():
    # A 40x60 image, scaled by 1/2, padded to 32x32; map of stride 2.
    meta = dict(
        ori_shape=(40, 60), img_shape=(20, 30), batch_input_shape=(32, 32)
    )
    attention = torch.zeros(16, 16)
    attention[3, 10] = 1.0  # image pixels y 12-15, x 40-43
    attention[12, 12] = 9.0  # in the padding
    on_image = map_on_image(attention, meta, 'nearest')
    assert on_image.shape == (40, 60)
    ys, xs = torch.nonzero(on_image, as_tuple=True)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (12, 15, 40, 43)
    assert on_image.max() == 1


def test_mean_over_levels():
    meta = dict(ori_shape=(8, 8), img_shape=(8, 8))
    maps = [
        CapturedMap(torch.full((2, 1, 4, 4), 0.2)),
        CapturedMap(torch.full((2, 1, 2, 2), 0.6)),
    ]
    mean = mean_over_levels(maps, 1, meta)
    assert mean == pytest.approx(np.full((8, 8), 0.4))
    assert finest_quantized(maps, 1, meta) is None


def test_the_quantised_map_keeps_its_anchors():
    meta = dict(ori_shape=(16, 16), img_shape=(8, 8))
    anchors = torch.tensor([0.1, 0.5, 0.9])
    maps = [
        CapturedMap(torch.rand(1, 1, side, side), quantized)
        for level, side in enumerate((2, 4))
        for quantized in [anchors[torch.randint(3, (1, 1, side, side))]]
    ]
    shown = finest_quantized(maps, 0, meta)
    expected = maps[1].quantized[0, 0].repeat_interleave(4, 0)
    expected = expected.repeat_interleave(4, 1)
    assert np.array_equal(shown, expected.numpy())


def test_a_classifiers_picture_is_what_it_saw():
    """Padded to the batch's largest image and the divisor; BGR from files,
    RGB from arrays."""
    from mmpretrain.structures import DataSample

    model = SimpleNamespace(
        data_preprocessor=SimpleNamespace(pad_size_divisor=32)
    )
    images = [torch.zeros(3, 20, 30), torch.zeros(3, 40, 10)]
    images[0][0] = 7
    array, file = DataSample(), DataSample(metainfo=dict(img_path='a.jpg'))
    image, shown = classifier_input(model, images, array)
    assert image.shape == (20, 30, 3)
    assert (image[..., 0] == 7).all()
    assert shown.metainfo['batch_input_shape'] == (64, 32)
    assert shown.metainfo['img_shape'] == (20, 30)
    assert 'img_shape' not in array
    attention = torch.arange(16.0 * 8).reshape(16, 8)
    expected = attention.repeat_interleave(4, 0).repeat_interleave(4, 1)
    drawn = map_on_image(attention, shown.metainfo, 'nearest')
    assert torch.equal(drawn, expected[:20, :30])
    image, _ = classifier_input(model, images, file)
    assert (image[..., 2] == 7).all()


def test_a_classifiers_picture_is_without_what_its_pipeline_padded():
    from mmpretrain.structures import DataSample

    model = SimpleNamespace(data_preprocessor=None)
    image = torch.zeros(3, 32, 32)
    image[:, :20, :30] = 7
    sample = DataSample(
        metainfo=dict(
            ori_shape=(40, 60), img_shape=(32, 32), scale_factor=(0.5, 0.5)
        )
    )
    seen, shown = classifier_input(model, [image], sample)
    assert seen.shape == (20, 30, 3)
    assert (seen == 7).all()
    attention = torch.zeros(8, 8)
    attention[2, 5] = 1  # of four by four pixels
    drawn = map_on_image(attention, shown.metainfo, 'nearest')
    expected = torch.zeros(20, 30)
    expected[8:12, 20:24] = 1
    assert torch.equal(drawn, expected)


def test_figure_has_a_panel_each():
    image = np.zeros((60, 80, 3), np.uint8)
    attention = np.linspace(0, 1, 4800).reshape(60, 80)
    panels = dict(image=image, attention=attention, predictions=image)
    three = attention_figure(panels)
    four = attention_figure(panels | dict(quantised=attention))
    assert three.shape[2] == four.shape[2] == 3
    assert four.shape[1] > three.shape[1]
    assert len(np.unique(four.reshape(-1, 3), axis=0)) > 50


def test_windows_are_mmsegs():
    """Against the loop of mmseg's slide_inference, recorded."""
    segmentor = seg.build(seg.shrink(seg.config(seg.UPERNET / seg.BEIT)))
    image = torch.arange(70 * 150.0).view(1, 1, 70, 150).repeat(1, 3, 1, 1)
    seen = []

    def encode_decode(window, metas):
        seen.append(window[0, 0])
        return window.new_zeros(1, 5, *window.shape[2:])

    segmentor.encode_decode = encode_decode
    segmentor.slide_inference(image, [{}])
    boxes = windows((70, 150), (64, 64), (42, 42))
    assert len(seen) == len(boxes) == 8
    for window, (rows, columns) in zip(seen, boxes):
        assert torch.equal(window, image[0, 0, rows, columns])


def test_maps_of_windows_are_put_together():
    class Slides:
        test_cfg = dict(mode='slide', crop_size=(4, 4), stride=(2, 2))

    meta = dict(img_shape=(4, 6), ori_shape=(4, 6))
    anchors = [torch.full((1, 1, 2, 2), v) for v in (0.25, 0.75)]
    maps = [
        CapturedMap(torch.full((1, 1, 2, 2), mean), anchors[i])
        for i, mean in enumerate((0.2, 0.8))
    ]
    (whole,) = whole_maps(Slides(), maps, meta)
    row = torch.tensor([0.2, 0.2, 0.5, 0.5, 0.8, 0.8])
    assert torch.allclose(whole.mean[0, 0], row.expand(4, 6))
    row = torch.tensor([0.25, 0.25, 0.75, 0.75, 0.75, 0.75])
    assert torch.equal(whole.quantized[0, 0], row.expand(4, 6))
    assert whole_maps(object(), maps, meta) is maps
    one = dict(img_shape=(4, 4), ori_shape=(4, 4))
    (whole,) = whole_maps(Slides(), maps[:1], one)
    assert whole.mean.shape == (1, 1, 4, 4)


def test_amounts_are_divided_by_area():
    """Against a fine grid that both grids divide."""
    x = torch.rand(2, 1, 4, 6, dtype=torch.float64)
    fine = x.repeat_interleave(5, 2).repeat_interleave(5, 3) / 25
    for size in ((10, 15), (5, 3), (4, 6), (20, 30)):
        rows, columns = 20 // size[0], 30 // size[1]
        blocks = fine.unfold(2, rows, rows).unfold(3, columns, columns)
        assert torch.allclose(spread(x, size), blocks.sum((-2, -1))), size


def gated(*grids, batch=1, level=0):
    """Maps of a gate: what it lets through of each of these grids."""
    bits = [torch.rand(batch, 1, *grid) for grid in grids]
    norms = [torch.rand(batch, 1, *grid) for grid in grids]
    mean = torch.rand(batch, 1, *grids[0])
    return CapturedMap(mean, None, norms, bits)


def test_bits_of_pixels_are_the_images_bits():
    """Whatever the levels' grids and the image's scale."""
    meta = dict(
        ori_shape=(37, 70), img_shape=(32, 48), batch_input_shape=(32, 48)
    )
    maps = [gated((8, 12), (5, 7), batch=2), gated((2, 3), batch=2, level=1)]
    on_image = bits_on_image(maps, 1, meta)
    assert on_image.shape == (37, 70)
    total = sum(b[1].sum() for m in maps for b in m.bits)
    assert torch.isclose(on_image.sum(), total)
    assert bits_on_image([CapturedMap(maps[0].mean)], 0, meta) is None


def test_bits_of_the_padding_are_not_the_images():
    meta = dict(
        ori_shape=(40, 60), img_shape=(20, 30), batch_input_shape=(32, 32)
    )
    captured = gated((16, 16))
    captured.bits[0].zero_()
    captured.bits[0][0, 0, 3, 10] = 1.0  # image pixels y 12-15, x 40-43
    captured.bits[0][0, 0, 12, 12] = 9.0  # in the padding
    expected = torch.zeros(40, 60)
    expected[12:16, 40:44] = 1 / 16
    assert torch.allclose(bits_on_image([captured], 0, meta), expected)


def test_bits_and_norms_of_windows_are_put_together():
    """Two levels that share a map; the middle third is seen twice."""

    class Slides:
        test_cfg = dict(mode='slide', crop_size=(4, 4), stride=(2, 2))

    meta = dict(img_shape=(4, 6), ori_shape=(4, 6))
    maps = [gated((2, 2), (1, 1), level=i) for i in range(2)]
    for captured, value in zip(maps, (1.0, 3.0)):
        for x in (*captured.bits, *captured.norms):
            x.fill_(value)
    (whole,) = whole_maps(Slides(), maps, meta)
    row = torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).expand(4, 6)
    assert [n[0, 0].tolist() for n in whole.norms] == [row.tolist()] * 2
    # a cell covers 4 pixels of the one level, 16 of the other
    fine, coarse = whole.bits
    assert torch.allclose(fine[0, 0], row / 4)
    assert torch.allclose(coarse[0, 0], row / 16)
    on_image = bits_on_image([whole], 0, meta)
    assert torch.allclose(on_image, row / 4 + row / 16)


def test_a_gate_is_scored_and_drawn_window_by_window(monkeypatch):
    """A real segmentor: what was stitched together scores and is drawn, and
    the metric's bits are those of the picture."""
    segmentor = seg.make(
        neck=dict(
            bottleneck=dict(
                quantizer=None,
                modulation=dict(_delete_=True, type='mmaib.InformationGate'),
            ),
        ),
    ).eval()
    data = seg.inputs(((64, 106),))
    metric = AttentionMetric(foreground=[1])
    with metric.watching(segmentor):
        (sample,) = segmentor.test_step(data)
        assert len(metric._maps) == 2
        maps = whole_maps(segmentor, metric._maps, sample.metainfo)
        metric.process(None, [sample.to_dict()])
    ((scores, _),) = metric.results
    assert 0 <= scores['auc_norm'] <= 1
    bits = bits_on_image(maps, 0, sample.metainfo)
    assert scores['bits_per_image'] == pytest.approx(float(bits.sum()), 1e-4)
    image = np.zeros((64, 106, 3), np.uint8)
    monkeypatch.setattr(visualization, 'draw_predictions', lambda *_: image)
    monkeypatch.setattr(visualization, 'attention_figure', lambda x, _: x)
    panels = picture(None, maps, image, sample)
    assert [*panels] == [
        'image', 'attention', 'information (bits a pixel)', 'predictions'
    ]  # fmt: skip
    shown = panels['information (bits a pixel)']
    assert np.array_equal(shown, bits.numpy())


def test_anchors_stand_on_the_bar():
    image = np.zeros((32, 32, 3), np.uint8)
    quantized = np.full((32, 32), 0.5, np.float32)
    plain, marked = (
        attention_figure(dict(image=image, quantised=quantized), a)
        for a in (None, np.array([0.0, 0.5, 1.0]))
    )
    assert plain.shape == marked.shape
    assert not np.array_equal(plain, marked)


# scaled by a half, padded to the right and below
PADDED = dict(
    ori_shape=(240, 400), img_shape=(120, 200), batch_input_shape=(128, 256)
)


def rectangle(*params, size=(64, 128)):
    rectangles = torch.tensor([params])
    mean = rectangle_window(rectangles, size)[:, None]
    return CapturedMap(mean, rectangles=rectangles)


@pytest.mark.parametrize('angle', [0.0, 0.6])
def test_an_outline_lies_on_the_edge_of_its_map(angle):
    captured = rectangle(0.45, 0.4, 0.3, 0.15, angle)
    drawn = outlined(np.zeros((240, 400, 3), np.uint8), [captured], 0, PADDED)
    line = drawn.any(-1)
    attention = map_on_image(captured.mean[0, 0], PADDED).numpy()
    # half in the middle of a side, a quarter in a corner
    assert 0.15 < attention[line].min() < 0.3
    assert 0.4 < attention[line].max() < 0.65
    inside = attention > 0.7
    ys, xs = np.nonzero(line)
    assert inside.any()
    for axis, found in enumerate((ys, xs)):
        within = np.nonzero(inside)[axis]
        assert found.min() < within.min() < within.max() < found.max()


def test_outlines_differ_by_level_and_leave_the_image():
    image = np.full((240, 400, 3), 9, np.uint8)
    small = rectangle(0.4, 0.4, 0.1, 0.1, 0.0)
    large = rectangle(0.4, 0.4, 0.9, 0.25, 0.3, size=(4, 8))  # beyond the top
    drawn = outlined(image, [small, large], 0, PADDED)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 3
    assert (image == 9).all()
    none = [CapturedMap(torch.rand(1, 1, 4, 4))]
    assert np.array_equal(outlined(image, none, 0, PADDED), image)


def test_a_map_of_one_row_lies_in_the_middle():
    (corners,) = rectangles_on_image(
        [rectangle(0.5, 0.5, 0.5, 0.5, 0.0, size=(1, 2))], 0, PADDED
    )
    # of 256 by 512 pixels, padding and all: all rows, the cells' middles
    assert corners.tolist() == [[128, 0], [384, 0], [384, 256], [128, 256]]


def test_a_picture_has_the_outline(monkeypatch):
    image = np.zeros((240, 400, 3), np.uint8)
    monkeypatch.setattr(visualization, 'draw_predictions', lambda *_: image)
    monkeypatch.setattr(visualization, 'attention_figure', lambda x, _: x)
    maps = [rectangle(0.5, 0.5, 0.2, 0.2, 0.0)]
    panels = picture(None, maps, image, Sample(PADDED))
    assert np.array_equal(panels['image'], outlined(image, maps, 0, PADDED))
    assert panels['image'].any()
    assert not panels['predictions'].any()


class Sample(dict):
    """A data sample without predictions."""

    @property
    def metainfo(self):
        return self
