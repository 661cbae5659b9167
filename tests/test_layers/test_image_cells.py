"""Padding counts in no map, score, change, statistic or loss: of a batch and
of a pipeline, held against masks of pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from PIL import Image
from support import detection as det
from support import segmentation as seg
from torch import nn

from mmaib.evaluation import AttentionMetric
from mmaib.evaluation.map_geometry import (
    bits_on_image,
    mean_over_levels,
    rectangles_on_image,
)
from mmaib.functional import gate_information
from mmaib.functional.sliding import windows
from mmaib.layers import (
    AttentiveBottleneck,
    CapturedMap,
    GaussianEncoder,
    KLCritic,
    MapDistribution,
    changed_maps,
)
from mmaib.layers.image_cells import (
    Box,
    cell_shares,
    cell_window,
    image_box,
    image_cells,
    next_window,
    own_cells,
)
from mmaib.layers.map_changes import CHANGES
from mmaib.losses import collect
from mmaib.models import AuxLossMixin
from mmaib.sampling.draws import Draws

STRIDE = 4
BOXES = ([[20, 12, 60, 44], [70, 60, 96, 84]], [[8, 8, 40, 60]])
SIZES = ((90, 120), (70, 52))


class AsItLooks(nn.Module):
    """A map that is how bright its features are, without a neighbour's."""

    def __init__(self):
        super().__init__()
        self.std = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        mean = (2 * x.mean(1, keepdim=True)).sigmoid()
        return MapDistribution(mean, self.std.expand_as(mean))


class Base(BaseModel):
    """A base model in the place where the mixin looks for one."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return getattr(self, mode)(inputs, data_samples)

    def predict(self, inputs, data_samples):
        self.features = F.avg_pool2d(inputs, STRIDE)
        self.passed = self.layer(self.features)
        return data_samples

    def loss(self, inputs, data_samples):
        self.predict(inputs, data_samples)
        return {}


class Model(AuxLossMixin, Base):
    draw_parts = {'attention': {}, 'latent': {}}


def model(library='mmdet', **bottleneck):
    init_default_scope(library)
    name = 'Cls' if library == 'mmpretrain' else 'Det'
    plain = dict(mean=[127.5] * 3, std=[127.5] * 3)
    made = Model(
        data_preprocessor=dict(
            type=f'{library}.{name}DataPreprocessor', **plain,
            pad_value=3.0,  # brighter than any image
        )
    )  # fmt: skip
    made.layer = AttentiveBottleneck(3, **bottleneck)
    made.layer.attention = AsItLooks()
    return made.eval()


def painted(size, boxes):
    """An image that is bright in its boxes."""
    image = np.full((*size, 3), 40, np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = 230
    return image


PIPELINES = {
    'plain': [dict(type='Resize', scale=(333, 200), keep_ratio=True)],
    'stretched': [dict(type='Resize', scale=(160, 128))],
    # RTMDet, YOLOX
    'size': [
        dict(type='Resize', scale=(320, 320), keep_ratio=True),
        dict(type='Pad', size=(320, 320), pad_val=dict(img=(255, 255, 255))),
    ],
    'divisor': [
        dict(type='Resize', scale=(251, 187), keep_ratio=True),
        dict(type='Pad', size_divisor=64, pad_val=dict(img=(255, 255, 255))),
    ],
    'square': [
        dict(type='Resize', scale=(301, 170), keep_ratio=True),
        dict(
            type='Pad', pad_to_square=True, pad_val=dict(img=(255, 255, 255))
        ),
    ],
    'both': [
        dict(type='FixScaleResize', scale=(300, 170), keep_ratio=True),
        dict(
            type='Pad', pad_to_square=True, size_divisor=32,
            pad_val=dict(img=(255, 255, 255)),
        ),
    ],
    # CenterNet: in the middle
    'centre': [
        dict(type='Resize', scale_factor=2.0, keep_ratio=True),
        dict(
            type='RandomCenterCropPad', ratios=None, border=None,
            mean=[255, 255, 255], std=[1, 1, 1], to_rgb=True, test_mode=True,
            test_pad_mode=['logical_or', 127], test_pad_add_pix=1,
        ),
    ],
}  # fmt: skip


def through(pipeline, tmp_path, library='mmdet'):
    """The batch that a test pipeline makes of the painted images."""
    init_default_scope(library)
    packing = dict(type='PackInputs')
    if library == 'mmdet':
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape',
                'scale_factor', 'border')  # fmt: skip
        packing = dict(type='PackDetInputs', meta_keys=keys)
    run = Compose(
        [dict(type='LoadImageFromFile', to_float32=True), *pipeline, packing]
    )
    packed = []
    for number, (size, boxes) in enumerate(zip(SIZES, BOXES)):
        path = tmp_path / f'{number}.png'
        Image.fromarray(painted(size, boxes)).save(path)
        found = run(dict(img_path=str(path), img_id=number))
        if library == 'mmdet':
            found['data_samples'].gt_instances = InstanceData(
                bboxes=HorizontalBoxes(torch.tensor(boxes).float())
            )
        packed.append(found)
    return packed


def looked_at(made, batch, metric=None):
    """The scores of each image of a batch, and its maps."""
    metric = metric or AttentionMetric(tolerance=0, threshold=0.5)
    rows = []
    with torch.no_grad(), metric.watching(made):
        samples = made.test_step(pseudo_collate(batch))
        maps = [*metric._maps]
        metric.process({}, [s.to_dict() for s in samples])
    rows += [scores for scores, _ in metric.results]
    metric.results = []
    return rows, maps, samples


@pytest.mark.parametrize('pipeline', PIPELINES)
@pytest.mark.parametrize('together', [False, True])
def test_a_perfect_map_is_perfect_behind_any_pipeline(
    pipeline, together, tmp_path, monkeypatch
):
    """The map is the picture itself, as it left pipeline and batch; padding
    is brighter than what is to be found."""
    monkeypatch.setattr(f'{__name__}.STRIDE', 2)
    made = model()
    packed = through(PIPELINES[pipeline], tmp_path)
    rows = []
    for batch in [packed] if together else [[one] for one in packed]:
        found, maps, samples = looked_at(made, batch)
        rows += found
        for index, sample in enumerate(samples):
            on_image = mean_over_levels(maps, index, sample.metainfo)
            assert on_image.shape == sample.ori_shape
    for row in rows:
        assert row['auc'] > 0.999
        assert row['iou'] > 0.98
        assert row['pointing'] == 1
    # the padding of both would have been found too
    if pipeline in ('size', 'square', 'both', 'centre'):
        bright = maps[0].mean[-1] > 0.86
        assert bright.float().mean() > 0.1


@pytest.mark.parametrize('pads', [False, True])
def test_a_perfect_map_of_a_classifier(pads, tmp_path):
    """mmpretrain pads a batch and says nothing of it, and its test pipelines
    may pad too."""
    pipeline = [dict(type='Resize', scale=(201, 170), keep_ratio=True)]
    if pads:
        pad = dict(img=(255, 255, 255))
        pipeline.append(dict(type='Pad', size=(224, 224), pad_val=pad))
    made, packed = model('mmpretrain'), through(
        pipeline, tmp_path, 'mmpretrain'
    )  # fmt: skip
    alone = []
    for one, boxes in zip(packed, BOXES):
        x, y = one['data_samples'].scale_factor
        scaled = np.array(boxes) * [x, y, x, y]
        one['data_samples'].set_metainfo(dict(gt_bboxes=scaled))
        alone += looked_at(made, [one])[0]
    together, _, samples = looked_at(made, packed)
    assert {s.batch_input_shape for s in samples} == {
        (224, 224) if pads else (201, 201)
    }
    for row, own in zip(together, alone):
        assert row['auc'] > 0.99
        assert row['iou'] > 0.93
        assert row['contrast'] == pytest.approx(own['contrast'], rel=0.02)


GATE = dict(type='mmaib.InformationGate')


def batch_of(sizes, seed=0):
    """Images of their own sizes, on cells of their own."""
    generator = torch.Generator().manual_seed(seed)
    packed = []
    for height, width in sizes:
        image = torch.randint(256, (3, height, width), generator=generator)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width), ori_shape=(height, width),
                scale_factor=(1.0, 1.0),
            )
        )  # fmt: skip
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 8, 20, 24]])
        )
        packed.append(dict(inputs=image.byte(), data_samples=sample))
    return packed


# the last has a column of cells of which half is image
PAIR = ((32, 48), (40, 72), (24, 30))


@pytest.mark.parametrize('draws', ['mean', dict(attention=3, seed=0)])
def test_an_image_alone_scores_as_beside_a_larger_one(draws):
    made = model(modulation=GATE)
    made._test_draws = Draws.from_config('test_draws', draws)
    made.data_preprocessor.pad_size_divisor = STRIDE
    together, maps, samples = looked_at(made, batch_of(PAIR))
    for index, one in enumerate(batch_of(PAIR)):
        (alone,), _, _ = looked_at(made, [one])
        assert together[index] == pytest.approx(alone, rel=1e-5)
        bits = bits_on_image(maps, index, samples[index].metainfo)
        assert float(bits.sum()) == pytest.approx(
            together[index]['bits_per_image'], rel=1e-5
        )
    # padding would have had the most of it
    whole = float(maps[0].bits[0][0].sum())
    assert whole > 2 * together[0]['bits_per_image']


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_map_has_nothing_of_its_padding(change):
    made = model(modulation=dict(mode='scale'))
    with changed_maps(made, change):
        looked_at(made, batch_of(PAIR))
        together = made.passed
        for index, one in enumerate(batch_of(PAIR[:2])):
            looked_at(made, [one])
            rows, columns = made.passed.shape[2:]
            own = together[index, :, :rows, :columns]
            assert torch.allclose(own, made.passed[0], atol=1e-6)
    looked_at(made, batch_of(PAIR))
    assert not torch.allclose(made.passed, together)
    # what is beyond an image stays as it was
    assert torch.equal(made.passed[0, :, 8:], together[0, :, 8:])


def pixel_shares(sizes, stride=STRIDE):
    """The share of image in each cell, counted in pixels."""
    canvas = tuple(max(side) for side in zip(*sizes))
    masks = torch.zeros(len(sizes), 1, *canvas)
    for mask, (height, width) in zip(masks, sizes):
        mask[:, :height, :width] = 1
    return F.avg_pool2d(masks, stride)


def weighted(values, shares):
    """One by one."""
    shares = shares.expand_as(values).flatten().double()
    return np.average(values.detach().double().flatten(), weights=shares)


def trained(made, packed):
    made.train()
    with torch.no_grad():
        data = made.data_preprocessor(pseudo_collate(packed), True)
    return made(**data, mode='loss')


def test_losses_and_statistics_are_of_the_images_alone():
    made = model(modulation=GATE, quantizer=dict(num_anchors=4), beta=0.5)
    made.train_draws = Draws()  # of the mean map, which is known
    losses = trained(made, batch_of(PAIR))
    x, shares = made.features, pixel_shares(PAIR)
    gate = made.layer.modulation
    for channel, values in enumerate(x.unbind(1)):
        mean = weighted(values, shares[:, 0])
        variance = weighted((values - mean).square(), shares[:, 0])
        own = gate.statistics[0]
        assert float(own.mean[channel]) == pytest.approx(mean, abs=1e-5)
        assert float(own.var[channel]) == pytest.approx(variance, rel=1e-4)
    normal = (x - own.mean) / own.std
    mean = (2 * normal.mean(1, keepdim=True)).sigmoid()
    kl = 0.5 * (mean.square() + 0.1**2 - 1) - np.log(0.1)
    anchors = torch.linspace(0, 1, 4)
    apart, chosen = (mean[..., None] - anchors).abs().min(-1)
    use = np.array([weighted(chosen == i, shares) for i in range(4)])
    expected = {
        'attention_mean': weighted(mean, shares),
        'attention_std': 0.1,
        'attention_contrast': np.mean(
            [
                weighted((m - weighted(m, s)).square(), s) ** 0.5
                for m, s in zip(mean, shares)
            ]
        ),
        'attention_saturated': weighted(
            ((mean - 0.5).abs() > 0.48).double(), shares
        ),
        'loss_vq': 0.4 * weighted(apart.square(), shares),
        'loss_commit': 0.1 * weighted(apart.square(), shares),
        'anchor_perplexity': np.exp(-sum(u * np.log(u) for u in use if u)),
        'kl_map_nats': weighted(kl, shares),
        'loss_kl_map': 0.5 * weighted(kl, shares),
    }
    found = {name: float(value) for name, value in losses.items()}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    features = 3 * shares.sum() / len(shares)
    assert found['info_bits_per_image'] == pytest.approx(
        float(found['info_nats'] * features / np.log(2)), rel=1e-4
    )


def test_the_price_is_of_the_images_alone():
    """At the mean, so that the same map passes by hand."""
    made = model(modulation=GATE)
    made.train_draws = Draws()
    losses = trained(made, batch_of(PAIR))
    x, own = made.features, made.layer.modulation.statistics[0]
    made.layer.modulation.eval()
    (openness,) = made.layer.attend(made.layer.map_inputs([x]))
    nats = gate_information(x, openness, own.mean, own.std)
    price = weighted(nats, pixel_shares(PAIR))
    assert float(losses['info_nats']) == pytest.approx(price, rel=1e-4)
    assert float(losses['loss_info']) == pytest.approx(0.01 * price, rel=1e-4)
    assert float(losses['gate_open']) == pytest.approx(
        weighted(openness, pixel_shares(PAIR)), rel=1e-4
    )
    # padding would have been the most expensive
    assert float(nats.mean()) > 1.2 * price


def test_images_that_fill_the_batch_know_of_no_padding():
    seen = []
    made = model(modulation=GATE)
    made.layer.attention.register_forward_hook(
        lambda _, args, __: seen.append(own_cells(args[0]))
    )
    trained(made, batch_of([(32, 48)] * 3))
    looked_at(made.eval(), batch_of([(32, 48)]))
    assert seen == [None, None]
    trained(made, batch_of(PAIR))
    assert torch.equal(seen[2], pixel_shares(PAIR))


class Sample:
    def __init__(self, height, width, **more):
        self.metainfo = dict(img_shape=(height, width), **more)


def opened(sizes, training=True, **fields):
    canvas = [max(side) for side in zip(*sizes)]
    inputs = torch.zeros(len(sizes), 3, *canvas)
    return image_cells(inputs, [Sample(*s) for s in sizes], training, **fields)


def test_latents_and_critics_see_no_padding():
    encoder = GaussianEncoder(3, 4, trunk='conv1x1')
    x, shares = torch.randn(3, 3, 10, 18), pixel_shares(PAIR)
    with opened(PAIR), collect() as aux:
        encoder(x)
    mean = encoder.mean(x).relu()
    std = encoder.std(x)
    std = F.softplus(std - 5) + 1e-4
    kl = 0.5 * (mean.square() + std.square() - 1) - std.log()
    assert float(aux.mean()['kl_nats']) == pytest.approx(
        weighted(kl, shares), rel=1e-5
    )
    critic = KLCritic(4)
    z = torch.rand(3, 4, 10, 18) + 1
    z = torch.where(shares > 0, z, torch.nan)
    with opened(PAIR):
        assert not any(x.isnan() for x in critic(z))
    assert all(x.isnan() for x in critic(z))


def test_a_standardised_map_is_that_of_its_image_alone():
    layer = AttentiveBottleneck(3, attention=dict(logit_norm=True)).eval()
    layer.attention.mean_conv.weight.data[..., [0, 0, 2, 2], [0, 2, 0, 2]] = 0
    nn.init.normal_(layer.attention.mean_conv.weight[..., 1, 1])
    layer.attention.mean_conv.weight.data[..., [0, 2, 1, 1], [1, 1, 0, 2]] = 0
    x = 5 * torch.randn(2, 3, 10, 18)
    with opened(PAIR[:2], training=False):
        maps = layer.attend([x])[0]
    alone = layer.attend([x[:1, :, :8, :12]])[0]
    torch.testing.assert_close(maps[:1, :, :8, :12], alone)
    torch.testing.assert_close(maps[1:], layer.attend([x[1:]])[0])
    assert not torch.allclose(layer.attend([x])[0][:1, :, :8, :12], alone)


@pytest.mark.parametrize(
    'modulation',
    [dict(mode='scale_residual', rescale=True), dict(**GATE, rescale=True)],
)
def test_a_rescaled_image_is_that_of_its_image_alone(modulation):
    layer = AttentiveBottleneck(3, modulation=modulation).eval()
    layer.attention = AsItLooks()
    x = torch.randn(2, 3, 10, 18)
    with opened(PAIR[:2], training=False):
        out = layer(x)
        with Draws(attention=2, seed=0).open():
            assert layer(x).shape == (4, 3, 10, 18)
    own = layer(x[:1, :, :8, :12])
    torch.testing.assert_close(out[:1, :, :8, :12], own)
    assert not torch.allclose(layer(x)[:1, :, :8, :12], own)


def test_features_of_regions_have_no_image():
    """As many as images times two, which no draw explains."""
    with opened(PAIR):
        assert own_cells(torch.rand(3, 1, 10, 18)) is not None
        assert own_cells(torch.rand(6, 1, 7, 7)) is None
        assert own_cells(torch.rand(6, 8)) is None
        with Draws(attention=2).open():
            assert len(own_cells(torch.rand(6, 1, 10, 18))) == 6
    assert own_cells(torch.rand(3, 1, 10, 18)) is None


def test_where_an_image_lies():
    padded = dict(img_shape=(64, 64), ori_shape=(30, 40))
    assert image_box(padded) == (0, 64, 0, 64)
    scaled = dict(**padded, scale_factor=(1.6, 1.6))
    assert image_box(scaled) == (0, 48, 0, 64)
    # a training pipeline may have put several images together
    assert image_box(scaled, training=True) == (0, 64, 0, 64)
    # and a crop is smaller than what was scaled
    cropped = dict(scaled, img_shape=(32, 32))
    assert image_box(cropped) == (0, 32, 0, 32)
    assert image_box(dict(padded, border=[8, 38, 12, 52])) == (8, 38, 12, 52)
    # mmdet's own examples have one that means nothing
    assert image_box(dict(padded, border=[1, 1, 1, 1])) == (0, 64, 0, 64)
    # mmseg's ResizeToMultiple scales once more
    twice = dict(scaled, pad_shape=(64, 64))
    assert image_box(twice) == (0, 64, 0, 64)
    assert image_box(dict(scaled, pad_shape=(64, 64, 3))).bottom == 48


def test_cells_of_an_image():
    box, size = Box(4, 12, 0, 10), (16, 16)
    shares = cell_shares(box, size, (4, 4))
    assert shares.tolist() == [
        [0, 0, 0, 0], [1, 1, 0.5, 0], [1, 1, 0.5, 0], [0, 0, 0, 0]
    ]  # fmt: skip
    assert cell_window(box, size, (4, 4)) == (slice(1, 3), slice(0, 3))
    # a cell that is larger than the image is the image's
    tiny = Box(10, 11, 0, 2)
    assert cell_window(tiny, size, (2, 2)) == (slice(1, 2), slice(0, 1))
    assert cell_shares(tiny, size, (2, 2))[1, 0] == pytest.approx(2 / 64)


def test_rectangles_lie_where_the_image_does():
    """In the middle of its input, scaled by two."""
    meta = dict(
        img_shape=(64, 128), ori_shape=(20, 40), border=[12, 52, 24, 104]
    )
    rectangle = torch.tensor([[0.5, 0.5, 0.25, 0.125, 0.0]])
    captured = CapturedMap(torch.rand(1, 1, 64, 128), rectangles=rectangle)
    (corners,) = rectangles_on_image([captured], 0, meta)
    ys, xs = corners.T.flip(0)
    # rows from 16.25 to 47.75, columns from 48.125 to 79.875
    assert ys.min() == pytest.approx((16.25 - 12) / 2)
    assert ys.max() == pytest.approx((47.75 - 12) / 2)
    assert xs.min() == pytest.approx((48.125 - 24) / 2)
    assert xs.max() == pytest.approx((79.875 - 24) / 2)


def test_a_window_has_its_own_part_of_an_image():
    size, crop, stride = (24, 64), (24, 32), (24, 16)
    found = []
    boxes = windows(size, crop, stride)
    with opened([(24, 64), (16, 40)], training=False, windows=boxes):
        x = torch.rand(2, 1, 6, 8)
        assert own_cells(x) is None
        for _ in boxes:
            with next_window():
                found.append(own_cells(x)[1, 0])
    mask = torch.zeros(1, 1, *size)
    mask[..., :16, :40] = 1
    assert len(boxes) == 3
    for own, (rows, columns) in zip(found, boxes):
        expected = F.avg_pool2d(mask[..., rows, columns], 4)[0, 0]
        assert torch.equal(own, expected)


@pytest.mark.parametrize('ours', [True, False])
def test_windows_of_a_segmentor_change_what_is_image(ours):
    """Images of 48 rows, padded to 64, under windows of 64 pixels."""
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    if not ours:
        cfg.model.update(type='mmaib.WithAuxLosses', base='EncoderDecoder')
    cfg.model.test_draws = 'mean'
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=(64, 64), stride=(42, 42)
    )
    cfg.model.neck.bottleneck = dict(quantizer=None)
    made = seg.build(cfg).eval()
    made.data_preprocessor.test_cfg = dict(size=(64, 106))
    data, maps = seg.inputs(((48, 106), (48, 106))), []
    made.neck.bottleneck.attention.register_forward_hook(
        lambda *args: maps.append(args[-1].mean)
    )
    with changed_maps(made, 'flatten'):
        made.neck.bottleneck.attention.register_forward_hook(
            lambda *args: maps.append(args[-1].mean)
        )
        with torch.no_grad():
            seg.predict(made, data)
    assert len(maps) == 4
    for before, after in (maps[:2], maps[2:]):
        rows = round(before.size(2) * 48 / 64)
        own = after[:, :, :rows]
        mean = before[:, :, :rows].mean((2, 3), keepdim=True)
        torch.testing.assert_close(own, mean.expand_as(own))
        assert torch.equal(after[:, :, rows:], before[:, :, rows:])


def test_a_detector_prices_its_images_alone():
    """The real one, by all its levels."""
    cfg = det.shrink(det.aib_config('aib'))
    cfg.model.neck.bottleneck = dict(modulation=GATE)
    made = det.build(cfg).train()
    sizes = ((128, 160), (96, 96))
    seen = []
    made.neck.bottleneck.modulation.register_forward_hook(
        lambda gate, args, _: seen.append(gate.information(*args).detach())
    )
    torch.manual_seed(0)
    data = made.data_preprocessor(det.inputs(sizes), True)
    losses = made(**data, mode='loss')
    mask = torch.zeros(2, 1, *data['inputs'].shape[2:])
    mask[0, :, :128, :160] = mask[1, :, :96, :96] = 1
    shares = [F.adaptive_avg_pool2d(mask, n.shape[2:]) for n in seen[:3]]
    price = sum((n * s).sum() for n, s in zip(seen, shares))
    count = sum(n.size(1) * s.sum() for n, s in zip(seen, shares))
    assert len(seen) == 5
    # the two coarsest levels have cells of no whole number of pixels
    assert float(losses['info_nats']) == pytest.approx(
        float(price / count), rel=0.02
    )
    whole = sum(n.sum() for n in seen) / sum(n.numel() for n in seen)
    assert abs(float(whole - price / count)) > 0.05 * float(whole)
