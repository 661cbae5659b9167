import copy
from fractions import Fraction

import pytest
import torch
from mmdet.models import FPN
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict

from mmaib.functional import resize
from mmaib.layers import MapDistribution
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.registry import MODELS
from mmaib.sampling.draws import Draws

FPN_CONFIG = dict(type='FPN', in_channels=[4, 8], out_channels=6, num_outs=3)


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def make_neck(**kwargs):
    kwargs.setdefault('neck', FPN_CONFIG)
    kwargs.setdefault('bottleneck', dict(quantizer=dict(num_anchors=5)))
    return AIBNeck(**copy.deepcopy(kwargs))


def features(batch=2):
    return torch.randn(batch, 4, 9, 7), torch.randn(batch, 8, 5, 4)


def switch_off(neck):
    """An attention map that is zero everywhere."""
    neck.bottleneck.quantizer = None
    torch.nn.init.zeros_(neck.bottleneck.attention.mean_conv.weight)
    torch.nn.init.constant_(neck.bottleneck.attention.mean_conv.bias, -1e4)


def test_forward_follows_the_data_flow():
    neck = make_neck().eval()
    x = features()
    bottleneck = neck.bottleneck
    for out, level in zip(neck(x), neck.neck(x)):
        mean = bottleneck.attention(level).mean
        a_q = bottleneck.quantizer.anchors[
            (mean[..., None] - bottleneck.quantizer.anchors).abs().argmin(-1)
        ]
        assert torch.allclose(out, level + level * a_q, atol=1e-6)


@pytest.mark.parametrize('where', ['after', 'before'])
def test_off_is_the_base_model_to_the_bit(where):
    kwargs = dict(where=where)
    if where == 'before':  # one bottleneck needs equal channels
        kwargs['neck'] = {**FPN_CONFIG, 'in_channels': [4, 4]}
    neck = make_neck(**kwargs).eval()
    switch_off(neck)
    x = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)
    x = x if where == 'before' else features()
    for out, expected in zip(neck(x), neck.neck(x)):
        assert torch.equal(out, expected)


def test_draws_as_a_batch_equal_a_loop_with_the_same_noise():
    neck = make_neck().eval()
    torch.nn.init.constant_(neck.bottleneck.attention.std_conv.bias, 3.0)
    x = features()
    with Draws(attention=4, seed=3).open():
        assert neck.copies == 4
        batched = neck(x)
    assert neck.copies == 1
    # The batch draws (L, N, ...) noise a level, so the loop must take the
    # l-th slice of each level's.
    generator = torch.Generator().manual_seed(3)
    prepared = neck.neck(x)
    noises = [
        torch.randn(4, 2, 1, *p.shape[2:], generator=generator)
        for p in prepared
    ]
    for draw in range(4):
        for out, p, noise in zip(batched, prepared, noises):
            maps = neck.bottleneck.attention(p)
            scores = maps.mean + maps.std * noise[draw]
            a_q = neck.bottleneck.quantizer(scores)
            got = out.unflatten(0, (4, 2))[draw]
            assert torch.allclose(got, p + p * a_q, atol=1e-6)


def test_evaluation_is_deterministic_and_training_is_not():
    neck, x = make_neck(), features()
    neck.eval()
    assert all(map(torch.equal, neck(x), neck(x)))
    neck.train()
    with Draws(attention=1).open(), collect():
        assert not all(map(torch.equal, neck(x), neck(x)))


def test_without_a_base_model_neck():
    neck = make_neck(neck=None, in_channels=4).eval()
    x = [torch.randn(1, 4, 5, 5)]
    assert neck(x)[0].shape == x[0].shape


def test_reports_and_gradients():
    neck = make_neck().train()
    with Draws(attention=1).open(), collect() as aux:
        out = neck(features())
    reports = aux.mean()
    assert set(reports) == {
        'loss_vq',
        'loss_commit',
        'attention_mean',
        'attention_std',
        'attention_contrast',
        'attention_saturated',
        'anchor_perplexity',
        'anchors_used',
    }
    total = sum(o.square().sum() for o in out)
    (total + reports['loss_vq'] + reports['loss_commit']).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize('raw', [-1e4, 1e4])
def test_extreme_statistics_stay_finite(raw):
    neck = make_neck().train()
    torch.nn.init.constant_(neck.bottleneck.attention.std_conv.bias, raw)
    with collect() as aux:
        out = neck(features())
    losses = [o.sum() for o in out]
    losses += [v for k, v in aux.mean().items() if 'loss' in k]
    sum(losses).backward()
    assert all(loss.isfinite() for loss in losses)
    assert all(p.grad.isfinite().all() for p in neck.parameters())


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_a_base_model_checkpoint_loads_onto_the_wrapped_neck(loader):
    base = FPN(in_channels=[4, 8], out_channels=6, num_outs=3)
    holder = torch.nn.Module()
    holder.neck = make_neck()
    state = {f'neck.{k}': v for k, v in base.state_dict().items()}
    keys = set(state)
    if loader == 'torch':
        result = holder.load_state_dict(state, strict=False)
        assert result.unexpected_keys == []
        assert all('bottleneck' in key for key in result.missing_keys)
    else:
        load_state_dict(holder, state, strict=False)
    assert loader == 'mmengine' or set(state) == keys
    for name, value in base.state_dict().items():
        assert torch.equal(holder.neck.neck.state_dict()[name], value)


def test_our_own_checkpoint_loads_strictly():
    neck, other = make_neck(), make_neck()
    other.load_state_dict(neck.state_dict(), strict=True)
    for a, b in zip(neck.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_levels_that_differ_in_channels():
    neck = make_neck(neck=None, in_channels=4).eval()
    with pytest.raises(ValueError, match='from 4 channels.*with 8'):
        neck(features())


def test_a_neck_that_tells_of_different_channels():
    @MODELS.register_module(force=True)
    class UnevenNeck(torch.nn.Module):
        out_channels = (4, 8)

    with pytest.raises(ValueError, match=r'UnevenNeck.*\[4, 8\]'):
        make_neck(neck=dict(type='mmaib.UnevenNeck'))


def test_channels_that_cannot_be_told():
    with pytest.raises(ValueError, match='in_channels is needed'):
        make_neck(neck=None)


def test_twenty_anchors_unless_said():
    neck = make_neck(bottleneck=dict(quantizer=dict(vq_weight=0.4)))
    assert neck.bottleneck.quantizer.num_anchors == 20


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(where='inside'), 'where must be one of'),
        (dict(bottleneck=dict(modulation=dict(mode='add'))), 'mode'),
        (dict(bottleneck=dict(quantizer=dict(num_anchors=0))), 'num_anchors'),
    ],
)
def test_bad_fields(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_neck(**kwargs)


def test_training_without_a_collector_is_refused():
    with pytest.raises(RuntimeError, match='WithAuxLosses'):
        make_neck().train()(features())


def test_training_at_the_mean_has_no_noise_and_no_unused_parameter():
    neck = make_neck(bottleneck={}).train()
    x = features()
    with collect():
        first, second = neck(x), neck(x)
    assert all(map(torch.equal, first, second))
    sum(level.sum() for level in first).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name


def test_levels_before_the_neck_that_differ_in_channels():
    with pytest.raises(ValueError, match=r'FPN\.in_channels = \[4, 8\]'):
        make_neck(where='before')


def test_channels_that_contradict_the_neck():
    with pytest.raises(ValueError, match='in_channels is 5.*have 6 channels'):
        make_neck(in_channels=5)


def test_channels_are_a_field_of_the_neck():
    with pytest.raises(ValueError, match="bottleneck sets {'in_channels': 4}"):
        make_neck(neck=None, bottleneck=dict(in_channels=4))


# One map from all levels


def make_shared(**kwargs):
    kwargs = {'in_channels': [4, 8], 'neck': None, **kwargs}
    return make_neck(map='shared', **kwargs)


@pytest.mark.parametrize('map_level', [0, 1, -1])
def test_a_shared_map_is_made_of_all_levels_and_applied_to_all(map_level):
    neck = make_shared(map_level=map_level, bottleneck={}).eval()
    x = features()
    grid = x[map_level].shape[2:]
    joined = torch.cat(
        [
            torch.nn.functional.interpolate(level, grid, mode='bilinear')
            for level in x
        ],
        dim=1,
    )
    mean = neck.bottleneck.attention(joined).mean
    assert mean.shape == (2, 1, *grid)
    for out, level in zip(neck(x), x):
        resized = torch.nn.functional.interpolate(
            mean, level.shape[2:], mode='bilinear'
        )
        assert torch.allclose(out, level + level * resized, atol=1e-6)


def test_a_shared_quantised_map_is_quantised_on_every_level():
    neck = make_shared(map_level=1).eval()
    anchors = neck.bottleneck.quantizer.anchors
    for attention in neck._maps(features()):
        assert torch.isin(attention, anchors).all()


@pytest.mark.parametrize('mode', ['bilinear', 'nearest'])
@pytest.mark.parametrize('size', [(6, 10), (7, 12), (2, 3), (1, 1)])
def test_a_resized_map_stays_where_it_is(mode, size):
    """A map mirrored and then resized is the resized one mirrored, which
    torch's 'nearest' is not: it leans to the left."""
    x = torch.rand(1, 1, 3, 5)
    mirrored = resize(x.flip(-1, -2), size, mode)
    expected = resize(x, size, mode).flip(-1, -2)
    torch.testing.assert_close(mirrored, expected)


def test_a_coarse_quantised_map_lies_on_the_continuous_one():
    """Each fine cell takes the score of the coarse cell that its centre is
    in."""
    x = torch.rand(1, 1, 3, 5)
    for size in ((9, 10), (7, 11), (2, 3), (1, 1)):
        rows, columns = (
            torch.tensor(
                [int(Fraction(2 * i + 1, 2 * n) * old) for i in range(n)]
            )
            for n, old in zip(size, x.shape[2:])
        )
        expected = x[..., rows[:, None], columns]
        assert torch.equal(resize(x, size, 'nearest'), expected)


def test_shared_off_is_the_input_to_the_bit():
    neck = make_shared().eval()
    switch_off(neck)
    x = features()
    assert all(map(torch.equal, neck(x), x))


def test_shared_draws_as_a_batch_equal_a_loop_with_the_same_noise():
    neck = make_shared(bottleneck={}).eval()
    torch.nn.init.constant_(neck.bottleneck.attention.std_conv.bias, 3.0)
    x = features()
    with Draws(attention=3, seed=3).open():
        batched = neck(x)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(3, 2, 1, 9, 7, generator=generator)
    for draw in range(3):
        one = copy.deepcopy(neck)

        def attention(joined, draw=draw):
            maps = neck.bottleneck.attention(joined)
            return MapDistribution(maps.mean + maps.std * noise[draw])

        one.bottleneck.attention.forward = attention
        for out, expected in zip(batched, one(x)):
            got = out.unflatten(0, (3, 2))[draw]
            assert torch.allclose(got, expected, atol=1e-6)


def test_a_shared_map_of_another_number_of_levels():
    neck = make_shared(in_channels=[4, 8, 8]).eval()
    with pytest.raises(ValueError, match='names 3 levels, got.* 2'):
        neck(features())


def test_the_kl_of_the_map():
    neck = make_shared(bottleneck=dict(beta=0.5)).train()
    x = features()
    with collect() as aux:
        maps = neck.bottleneck.attention(neck_input(neck, x))
        mean, std = maps.mean, maps.std
        neck(x)
    reports = aux.mean()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std),
        torch.distributions.Normal(0.0, 1.0),
    ).mean()
    assert torch.allclose(reports['kl_map_nats'], expected, rtol=1e-4)
    assert torch.allclose(reports['loss_kl_map'], 0.5 * expected, rtol=1e-4)


def neck_input(neck, x):
    """What a shared map is made from, the levels on the first one's grid."""
    second = torch.nn.functional.interpolate(
        x[1], x[0].shape[2:], mode='bilinear'
    )
    return torch.cat([x[0], second], dim=1)


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(in_channels=4), "map='shared' needs in_channels as a list"),
        (dict(map_level=2), 'map_level must name one of 2 levels, got 2'),
        (
            dict(bottleneck=dict(modulation=dict(mode='bias'))),
            r"mode 'bias' expands.*differ: \[4, 8\]",
        ),
        (dict(bottleneck=dict(beta=-1.0)), 'beta must be >= 0.0'),
    ],
)
def test_bad_fields_of_a_shared_map(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_shared(**kwargs)


def test_concat_before_a_neck_that_tells_its_channels():
    """The neck receives twice the channels that attention looks at."""
    neck = dict(type='mmaib.VGGBlocks', channels=(6,), depths=(1,),
                pools=(False,), in_channels=8)  # fmt: skip
    bottleneck = dict(modulation=dict(mode='concat'))
    aib = AIBNeck(bottleneck, neck, where='before').eval()
    assert aib.bottleneck.map_channels == 4
    assert aib((torch.randn(2, 4, 5, 5),))[0].shape == (2, 6, 5, 5)
    with pytest.raises(ValueError, match='in_channels is 8'):
        AIBNeck(bottleneck, neck, where='before', in_channels=8)
    neck['in_channels'] = 7
    with pytest.raises(ValueError, match=r'a multiple of 2, got 7'):
        AIBNeck(bottleneck, neck, where='before')


def test_a_list_of_necks_is_one_behind_the_other():
    """Its channels are those of the last, or of the first."""
    fpn = dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=4,
               num_outs=2)  # fmt: skip
    second = dict(fpn, in_channels=[4, 4], out_channels=6)
    x = [torch.rand(1, 8, 8, 8), torch.rand(1, 16, 4, 4)]
    for where, channels in (('after', [6, 6]), ('before', [8, 16])):
        shared = {} if where == 'after' else {'map': 'shared'}
        neck = AIBNeck({}, [fpn, second], where, **shared).eval()
        assert neck.level_channels == channels
        assert neck.out_channels == 6
        assert [level.size(1) for level in neck(x)] == [6, 6]
    keys = {
        key.replace('neck.', '', 1): value
        for key, value in neck.state_dict().items()
        if key.startswith('neck.')
    }
    assert '1.fpn_convs.0.conv.weight' in keys
    loaded = AIBNeck({}, [fpn, second], where, **shared).load_state_dict(
        keys, strict=False
    )
    assert not loaded.unexpected_keys
    assert all(key.startswith('bottleneck') for key in loaded.missing_keys)


def test_a_neck_without_num_outs_gives_as_many_levels_as_it_takes():
    neck = dict(type='mmdet.YOLOXPAFPN', in_channels=[8, 16, 32],
                out_channels=8)  # fmt: skip
    gate = dict(modulation=dict(type='mmaib.InformationGate'))
    assert AIBNeck(gate, neck).level_channels == [8, 8, 8]


@pytest.mark.parametrize('where', ['before', 'after'])
def test_a_feature_without_a_tuple_leaves_without_one(where):
    x = torch.rand(2, 8, 5, 5)
    bare = AIBNeck({}, in_channels=8, where=where).eval()
    assert torch.equal(bare(x), bare([x])[0])
    assert isinstance(bare([x]), tuple)
