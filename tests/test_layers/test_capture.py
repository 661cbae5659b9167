import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from torch import nn

from mmaib.functional import rectangle_window
from mmaib.layers import AttentiveBottleneck, capture_attention, changed_maps
from mmaib.layers.map_changes import MAP_CHANGES, ORDERS, reordered
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling.draws import Draws, latent_noise


def test_capture_records_and_lets_go():
    bottleneck = AttentiveBottleneck(4, quantizer=dict(num_anchors=3)).eval()
    x = torch.randn(2, 4, 6, 6)
    with capture_attention(bottleneck) as maps:
        bottleneck(x)
        with Draws(attention=5).open():
            bottleneck.attend([x])[0]
    bottleneck(x)
    assert len(maps) == 2
    mean = bottleneck.attention(x).mean
    assert torch.equal(maps[0].mean, mean)
    assert torch.equal(maps[0].quantized, bottleneck.quantizer(mean))
    assert maps[1].quantized.shape == (2, 1, 6, 6)
    assert torch.isin(maps[1].quantized, bottleneck.quantizer.anchors).all()


GATE = dict(type='mmaib.InformationGate')
NECKS = {
    'per_level': dict(
        neck=dict(type='FPN', in_channels=[4, 8], out_channels=6, num_outs=3)
    ),
    'shared': dict(map='shared', in_channels=[4, 8], map_level=1),
}
BOTH = pytest.mark.parametrize('name', NECKS)


def features(batch=2):
    return torch.randn(batch, 4, 12, 10), torch.randn(batch, 8, 6, 5)


def neck(name, **bottleneck):
    init_default_scope('mmdet')
    model = AIBNeck(bottleneck, **copy.deepcopy(NECKS[name])).eval()
    model.init_weights()
    conv = model.bottleneck.attention.mean_conv
    nn.init.normal_(conv.weight, std=0.3)
    for own in getattr(model.bottleneck.modulation, 'statistics', []):
        own.mean.normal_()
        own.var.uniform_(0.5, 2)
    return model


def levels_of(model, x):
    """The features that the maps modulate."""
    return model.neck(x) if model.neck else x


@BOTH
@pytest.mark.parametrize('modulation', [GATE, dict(mode='scale')])
def test_norms_are_of_the_features_of_each_level(name, modulation):
    """Behind several forwards, as of sliding windows."""
    model, windows = neck(name, modulation=modulation), []
    with capture_attention(model) as maps:
        for _ in range(3):
            windows.append(features())
            model(windows[-1])
    per_window = len(maps) // 3
    assert per_window == (3 if name == 'per_level' else 1)
    assert len(maps) == 3 * per_window
    for i, x in enumerate(windows):
        mine = maps[i * per_window : (i + 1) * per_window]
        seen = [norm for m in mine for norm in m.norms]
        expected = levels_of(model, x)
        assert len(seen) == len(expected)
        for norm, level in zip(seen, expected):
            by_hand = level.square().sum(1, keepdim=True).sqrt()
            torch.testing.assert_close(norm, by_hand)
        assert len([b for m in mine for b in m.bits]) == (
            len(expected) if modulation is GATE else 0
        )


@BOTH
@pytest.mark.parametrize('anchors', [None, 5])
def test_bits_are_what_the_gate_reports(name, anchors):
    quantizer = anchors and dict(num_anchors=anchors)
    model = neck(name, modulation=GATE, quantizer=quantizer)
    with collect() as aux, capture_attention(model) as maps:
        model(features(3))
    bits = [b for m in maps for b in m.bits]
    assert all(b.shape[:2] == (3, 1) for b in bits)
    total = sum(b.sum() for b in bits) / 3
    torch.testing.assert_close(total, aux.mean()['info_bits_per_image'])


@BOTH
@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize('anchors', [None, 5])
def test_all_that_is_captured_is_of_the_mean_map(name, anchors, count):
    """However many maps are drawn, and how far they are from their mean."""
    quantizer = anchors and dict(num_anchors=anchors)
    model, x = neck(name, modulation=GATE, quantizer=quantizer), features()
    nn.init.constant_(model.bottleneck.attention.std_conv.bias, 5.0)
    with capture_attention(model) as expected:
        mean = model(x)
    draws = Draws(attention=count, seed=0)
    with draws.open(), collect() as unseen:
        model(x)
    with (
        draws.open(),
        collect() as aux,
        capture_attention(model) as maps,
    ):
        drawn = model(x)
    assert len(drawn[0]) == count * len(mean[0])
    assert not torch.allclose(drawn[0][:2], mean[0], atol=1e-2)
    for found, own in zip(maps, expected, strict=True):
        assert torch.equal(found.mean, own.mean)
        assert all(map(torch.equal, found.bits, own.bits))
        assert found.bits
        if anchors:
            assert torch.equal(found.quantized, own.quantized)
    assert aux.mean() == unseen.mean()  # looking reports nothing


def test_a_map_that_the_caller_lets_go_is_freed():
    model = AttentiveBottleneck(4, modulation=GATE).eval()
    x = torch.randn(2, 4, 6, 6)
    with capture_attention(model) as maps:
        model(x)
        first = weakref.ref(maps[0].mean)
        maps.clear()
        model(x)
        assert len(maps) == 1
        gc.collect()
        assert first() is None


def shuffle(x):
    height, width = x.shape[-2:]
    generator = torch.Generator().manual_seed(height * width)
    order = torch.randperm(height * width, generator=generator)
    return x.flatten(2)[..., order].unflatten(-1, (height, width))


BY_HAND = {
    'mirror': lambda x: x.flip(3),
    'flatten': lambda x: x.mean((2, 3), keepdim=True) + 0 * x,
    'shuffle': shuffle,
    'complement': lambda x: 1 - x,
}


def by_hand(model, x, change):
    """The neck's output with each map altered in front of the quantiser."""
    bottleneck, alter = model.bottleneck, BY_HAND[change]
    levels = levels_of(model, x)
    seen = bottleneck.map_inputs(levels)
    if model.map == 'shared':
        grid = levels[model.map_level].shape[2:]
        seen = [
            torch.cat(
                [
                    F.interpolate(s, grid, mode='bilinear')
                    if s.shape[2:] != grid
                    else s
                    for s in seen
                ],
                1,
            )
        ] * len(levels)
    out = []
    for i, (level, source) in enumerate(zip(levels, seen)):
        scores = alter(bottleneck.attention(source).mean)
        if bottleneck.quantizer is not None:
            scores = bottleneck.quantizer(scores)
        if scores.shape[2:] != level.shape[2:]:
            mode = 'nearest-exact' if bottleneck.quantizer else 'bilinear'
            scores = F.interpolate(scores, level.shape[2:], mode=mode)
        out.append(bottleneck.modulate(level, scores, i))
    return out


@BOTH
@pytest.mark.parametrize('anchors', [None, 5])
@pytest.mark.parametrize('modulation', [GATE, dict(mode='scale_residual')])
@pytest.mark.parametrize('change', BY_HAND)
def test_changed_maps_are_those_changed_by_hand(
    name, anchors, modulation, change
):
    quantizer = anchors and dict(num_anchors=anchors)
    model = neck(name, modulation=modulation, quantizer=quantizer)
    x = features()
    before = model(x)
    with changed_maps(model, change):
        changed = model(x)
    for mine, expected, old, new in zip(
        changed, by_hand(model, x, change), before, model(x)
    ):
        torch.testing.assert_close(mine, expected)
        assert not torch.allclose(mine, old, atol=1e-3)
        assert torch.equal(old, new)  # lets go
    assert not model.bottleneck.attention._forward_hooks


@pytest.mark.parametrize('change', MAP_CHANGES)
def test_changed_maps_keep_their_scores(change):
    x = torch.rand(2, 1, 5, 7)
    changed = MAP_CHANGES[change](x)
    assert changed.shape == x.shape
    assert torch.equal(changed, MAP_CHANGES[change](x))
    if change == 'flatten':
        torch.testing.assert_close(changed.mean((2, 3)), x.mean((2, 3)))
    else:
        assert torch.equal(
            changed.flatten(1).sort().values, x.flatten(1).sort().values
        )
        assert not torch.equal(changed, x)


def test_scores_go_where_another_map_is_highest():
    own = torch.tensor([0.1, 0.9, 0.4, 0.2]).view(1, 1, 2, 2)
    places = torch.tensor([3.0, -1.0, 7.0, 5.0]).view(1, 1, 2, 2)
    moved = reordered(own, own, places)
    assert moved.flatten().tolist() == pytest.approx([0.2, 0.1, 0.9, 0.4])
    std = 10 * own  # each with its score
    assert torch.equal(reordered(std, own, places), 10 * moved)
    ties = torch.tensor([0.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
    moved = reordered(own, own, ties)
    assert moved.flatten()[2] == 0.9
    # a permutation, the same one each time
    assert torch.equal(moved.flatten().sort()[0], own.flatten().sort()[0])
    assert torch.equal(moved, reordered(own, own, ties))


@pytest.mark.parametrize('draws', [None, 3])
@pytest.mark.parametrize('change', ORDERS)
def test_maps_in_the_order_of_the_norm_and_of_the_centre(change, draws):
    model = AttentiveBottleneck(4).eval()
    nn.init.normal_(model.attention.mean_conv.weight)
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 6)
    with Draws(attention=draws, seed=0).open():
        (own,) = model.attend([x])
        with changed_maps(model, change):
            (changed,) = model.attend([x])
    rows, columns = torch.meshgrid(
        (torch.arange(5) - 2) / 2, (torch.arange(6) - 2.5) / 2.5, indexing='ij'
    )
    places = dict(
        norm=x.square().sum(1).repeat(draws or 1, 1, 1),
        centre=-(rows**2 + columns**2).expand(len(own), 5, 6),
    )[change]
    assert changed.shape == own.shape
    for scores, before, place in zip(changed, own, places):
        if draws is None:  # a draw has its noise beside
            assert torch.equal(
                scores.flatten().sort()[0], before.flatten().sort()[0]
            )
            along = scores.flatten()[place.flatten().argsort(stable=True)]
            spread = along.diff()[place.flatten().sort()[0].diff() > 1e-6]
            assert (spread >= 0).all()
        assert not torch.equal(scores, before)


@BOTH
def test_an_open_map_is_the_host_to_the_bit(name):
    """Draws too, as its std is 0."""
    model = neck(name, modulation=GATE)
    for own in model.bottleneck.modulation.statistics:
        own.mean.normal_()
    x = features()
    out = model(x)
    with changed_maps(model, 'open'), Draws(attention=2, seed=0).open():
        opened = model(x)
    given = x if model.neck is None else model.neck(x)
    for level, shut, host in zip(opened, out, given):
        assert torch.equal(level, torch.cat([host, host]))
        assert not torch.allclose(shut, host, atol=1e-3)


def test_draws_come_of_the_changed_mean_and_std():
    model = AttentiveBottleneck(4).eval()
    nn.init.normal_(model.attention.mean_conv.weight)
    nn.init.normal_(model.attention.std_conv.weight, std=3)
    x = torch.randn(1, 4, 5, 6)

    def draws():
        with Draws(attention=200, seed=0).open():
            return model.attend([x])[0]

    maps = model.attention(x)
    mean, std = maps.mean, maps.std
    epsilon = (draws() - mean) / std
    for change, expected in (
        ('mirror', mean.flip(-1) + std.flip(-1) * epsilon),
        ('complement', 1 - mean + std * epsilon),
    ):
        with changed_maps(model, change):
            drawn = draws()
        torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)


def test_an_error_inside_lets_go_too():
    model = AttentiveBottleneck(4).eval()
    with pytest.raises(ZeroDivisionError), changed_maps(model, 'mirror'):
        raise ZeroDivisionError
    assert not model.attention._forward_hooks


def test_a_model_without_maps_has_none_to_change():
    with (
        pytest.raises(ValueError, match='Linear has no AttentiveBottleneck'),
        changed_maps(nn.Linear(1, 1), 'mirror'),
    ):
        pass


def test_the_anchors_of_a_map():
    bottleneck = AttentiveBottleneck(8, quantizer=dict(num_anchors=3)).eval()
    x = torch.rand(2, 8, 4, 4)
    with capture_attention(bottleneck) as maps:
        bottleneck(x)
    made = bottleneck.attention(x)
    assert torch.equal(maps[0].mean, made.mean)
    assert maps[0].anchors.tolist() == [0, 0.5, 1]


def test_the_rectangles_of_a_map():
    attention = dict(type='mmaib.RectangularAttention', channels=(4,))
    bottleneck = AttentiveBottleneck(8, attention=attention).eval()
    torch.nn.init.normal_(bottleneck.attention.mean.weight)
    x = torch.rand(3, 8, 6, 9)
    with capture_attention(bottleneck) as maps:
        bottleneck(x)
    assert maps[0].rectangles.shape == (3, 5)
    windows = rectangle_window(maps[0].rectangles, (6, 9))
    assert torch.equal(windows[:, None], maps[0].mean)
    plain = AttentiveBottleneck(8).eval()
    with capture_attention(plain) as maps:
        plain(x)
    assert maps[0].rectangles is None


def test_looking_draws_no_noise():
    bottleneck = AttentiveBottleneck(8).eval()
    x = torch.rand(3, 8, 6, 9)

    def drawn():
        with Draws(attention=2, latent=2, seed=0).open():
            return bottleneck(x), latent_noise(x)

    expected = drawn()
    with torch.no_grad(), capture_attention(bottleneck):
        assert all(map(torch.equal, drawn(), expected))
