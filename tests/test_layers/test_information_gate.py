import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmaib.layers import (
    AttentiveBottleneck,
    FeatureModulation,
    InformationGate,
)
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling.draws import Draws

FPN = dict(type='FPN', in_channels=[4, 8], out_channels=6, num_outs=3)
GATE = dict(type='mmaib.InformationGate', beta=0.5)


def features(scale=1.0):
    return (
        scale * torch.randn(2, 4, 9, 7) + 3,
        scale * torch.randn(2, 8, 5, 4),
    )


def neck(map='per_level', **fields):
    init_default_scope('mmdet')
    options = dict(neck=FPN)
    if map == 'shared':
        options = dict(neck=None, in_channels=[4, 8])
    bottleneck = dict(modulation=GATE, **fields)
    return AIBNeck(copy.deepcopy(bottleneck), map=map, **options)


BOTH = pytest.mark.parametrize('map', ['per_level', 'shared'])


@BOTH
@pytest.mark.parametrize('anchors', [None, 5])
def test_trains_and_reports(map, anchors):
    quantizer = anchors and dict(num_anchors=anchors)
    model, x = neck(map, quantizer=quantizer).train(), features()
    with Draws(attention=1).open(), collect() as aux:
        out = model(x)
    reports = aux.mean()
    assert {
        'loss_info', 'info_nats', 'info_bits_per_image', 'gate_open'
    } < set(reports)  # fmt: skip
    nats = reports['info_nats']
    torch.testing.assert_close(reports['loss_info'].detach(), 0.5 * nats)
    (sum(level.sum() for level in out) + sum(
        v for k, v in reports.items() if 'loss' in k
    )).backward()  # fmt: skip
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bits_are_summed_over_positions_channels_and_levels():
    model, x = neck(map='shared').train(), features()
    seen = []
    gate = model.bottleneck.modulation
    gate.register_forward_pre_hook(lambda _, args: seen.append(args))
    with collect() as aux:
        model(x)
    bits = 0
    for x, a, level in seen:
        own, a = gate.statistics[level], a.clamp(0, 0.999)
        passed = torch.distributions.Normal(
            a * x + (1 - a) * own.mean, (1 - a) * own.std
        )
        rest = torch.distributions.Normal(own.mean.expand_as(x), own.std)
        kl = torch.distributions.kl_divergence(passed, rest)
        bits += kl.sum() / len(x) / torch.tensor(2.0).log()
    found = aux.mean()
    torch.testing.assert_close(
        found['info_bits_per_image'], bits, rtol=1e-4, atol=1e-3
    )
    # a bit has one price, whatever its level
    size = sum(x[0].numel() for x, _, _ in seen)
    torch.testing.assert_close(
        found['info_nats'] * size / torch.tensor(2.0).log(), bits,
        rtol=1e-4, atol=1e-3,
    )  # fmt: skip


def test_openness_is_the_mean_over_the_positions_of_all_levels():
    gate = InformationGate([3, 3]).train()
    gate.strength.fill_(0.5)
    maps = torch.full((2, 1, 6, 6), 0.2), torch.full((2, 1, 2, 2), 0.8)
    with collect() as aux:
        gate.report([torch.randn(2, 3, *a.shape[2:]) for a in maps], maps)
    # half faded in, 0.6 of 36 positions and 0.9 of 4
    found = float(aux.mean()['gate_open'])
    assert found == pytest.approx((36 * 0.6 + 4 * 0.9) / 40)


def test_bits_of_several_gates_are_added():
    """And those of one that is passed twice, such as two views', averaged."""
    x, a = torch.randn(2, 6, 5, 4), torch.rand(2, 1, 5, 4)
    gates = InformationGate(6).train(), InformationGate(6).train()
    bits = []
    for passes in (gates[:1], gates[:1] * 2, gates):
        with collect() as aux:
            for gate in passes:
                gate.report([x], [a])
        bits.append(aux.mean()['info_bits_per_image'])
    torch.testing.assert_close(bits[1], bits[0])
    torch.testing.assert_close(bits[2], 2 * bits[0])


@BOTH
def test_without_strength_it_is_the_host_to_the_bit(map):
    model = neck(map).eval()
    model.bottleneck.modulation.strength.fill_(0.0)
    x = features()
    host = model.neck(x) if model.neck else x
    for drawn in (Draws(), Draws(attention=1, seed=0)):
        with drawn.open():
            assert all(map_equal(model(x), host))


def test_rescaled_it_pools_what_passes():
    """The mean over positions is that of the open ones, weighed by a; where
    all is open, and before the gate has faded in, the features to the bit."""
    gate = InformationGate(3, rescale=True).eval()
    x, a = torch.randn(2, 3, 6, 5), torch.rand(2, 1, 6, 5)
    own = gate.statistics[0]
    own.mean.normal_()
    pooled = gate(x, a).mean((2, 3))
    around = own.mean.flatten()
    weighed = ((x - own.mean) * a).sum((2, 3)) / a.sum((2, 3))
    torch.testing.assert_close(pooled, around + weighed)
    assert torch.equal(gate(x, torch.ones_like(a)), x)
    gate.strength.fill_(0.0)
    assert torch.equal(gate(x, a), x)


@pytest.mark.parametrize(('open_', 'divisor'), [(0.05, 0.05), (2e-3, 0.01)])
def test_rescaled_by_a_mean_down_to_a_hundredth(open_, divisor):
    gate = InformationGate(3, rescale=True).eval()
    own = gate.statistics[0]
    own.mean.normal_()
    x = torch.randn(2, 3, 4, 5)
    a = torch.zeros(2, 1, 4, 5)
    a[..., 1, 2] = 20 * open_
    expected = own.mean + (x - own.mean) * a / divisor
    torch.testing.assert_close(gate(x, a), expected, rtol=1e-4, atol=1e-5)
    product = FeatureModulation(3, mode='scale_residual', rescale=True)
    torch.testing.assert_close(product(x, a), x + x * a / divisor)


def test_rescaled_where_all_is_closed():
    gate = InformationGate(3, rescale=True).train()
    x = torch.randn(2, 3, 6, 5)
    a = torch.zeros(2, 1, 6, 5, requires_grad=True)
    with Draws(attention=1).open():
        out = gate(x, a)
    out.sum().backward()
    assert out.isfinite().all()
    assert a.grad.isfinite().all()


def map_equal(first, second):
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


def test_where_it_is_closed_nothing_of_the_feature_is_left():
    """To the bit, in mean mode and in a draw with the same noise."""
    gate = InformationGate(3).eval()
    first, second = torch.randn(2, 1, 3, 4, 4)
    closed = torch.zeros(1, 1, 4, 4)
    assert torch.equal(gate(first, closed), gate(second, closed))
    drawn = []
    for x in (first, second):
        with Draws(attention=1, seed=0).open():
            drawn.append(gate(x, closed))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], gate(first, closed))


def test_statistics_follow_the_features_and_stand_still_in_evaluation():
    gate = InformationGate([3, 3]).train()
    other = torch.zeros(4, 3, 2, 2)
    batches = [5 * torch.randn(4, 3, 8, 8) + 2 for _ in range(4)]
    for x in batches:
        gate.map_inputs([other, x])
    seen = torch.stack(batches).transpose(0, 2).flatten(1)
    own = gate.statistics[1]
    # the mean over the first steps
    torch.testing.assert_close(own.mean.flatten(), seen.mean(1))
    torch.testing.assert_close(own.std.flatten(), seen.std(1), rtol=0.02,
                               atol=0)  # fmt: skip
    assert not gate.statistics[0].mean.any()
    before = copy.deepcopy(gate.state_dict())
    normal = gate.eval().map_inputs([other, batches[0]])[1]
    assert abs(normal.mean()) < 0.3
    assert 0.8 < normal.std() < 1.2
    for name, value in gate.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_second_batch_before_backward_leaves_the_firsts_gradient():
    """A tracker's reference frame, a student's other branch."""
    gradients = []
    for more in (False, True):
        torch.manual_seed(0)
        gate = InformationGate(in_channels=3)
        first, second = torch.randn(2, 2, 3, 6, 6)
        first.requires_grad_()
        (seen,) = gate.map_inputs([first])
        if more:
            gate.map_inputs([5 + 3 * second])
        seen.pow(3).sum().backward()
        gradients.append(first.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_two_batches_then_one_backward(rescale, dtype):
    """At the mean too, where nothing is drawn, and in half precision."""
    gate = dict(type='mmaib.InformationGate', rescale=rescale)
    layer = AttentiveBottleneck(4, modulation=gate).to(dtype).train()
    first, second = torch.randn(2, 2, 4, 6, 6, dtype=dtype)
    for draw in (Draws(), Draws(attention=1)):
        with collect() as found, draw.open():
            total = layer(first).sum() + layer(second).sum()
        (total + sum(found.mean().values())).backward()
    assert layer.attention.mean_conv.weight.grad.abs().sum() > 0
    assert layer.modulation.statistics[0].mean.dtype == dtype


def test_statistics_forget_all_but_about_ten_steps():
    """The mean of the first ten, a tenth of each batch from then on."""
    gate = InformationGate(1).train()
    batches = [t + (t % 3 + 1) * torch.randn(2, 1, 5, 4) for t in range(25)]
    for x in batches:
        gate.map_inputs([x])
    shares = [0.1 * 0.9**15] * 10 + [
        0.1 * 0.9 ** (24 - t) for t in range(10, 25)
    ]
    assert sum(shares) == pytest.approx(1)
    own = gate.statistics[0]
    mean = sum(s * x.mean() for s, x in zip(shares, batches))
    var = sum(s * x.var(correction=0) for s, x in zip(shares, batches))
    torch.testing.assert_close(own.mean.squeeze(), mean)
    torch.testing.assert_close(own.var.squeeze(), var, rtol=1e-4, atol=0)


def test_one_step_makes_statistics_sane():
    gate = InformationGate(3).train()
    (out,) = gate.map_inputs([100 * torch.randn(2, 3, 16, 16) - 1e3])
    assert abs(out.mean()) < 1e-3
    assert out.std() == pytest.approx(1, abs=0.01)


def test_half_precision_and_a_map_out_of_range_stay_finite():
    layer = AttentiveBottleneck(4, modulation=GATE).train()
    nn.init.constant_(layer.attention.mean_conv.bias, 50.0)
    x = 100 * torch.randn(2, 4, 6, 6)
    with (
        torch.autocast('cpu', torch.bfloat16),
        Draws(attention=1).open(),
        collect() as aux,
    ):
        out = layer(x.bfloat16())
    loss = aux.mean()['loss_info']
    (out.float().sum() + loss).backward()
    assert out.dtype == torch.bfloat16
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_more_levels_than_were_named():
    init_default_scope('mmdet')
    model = AIBNeck(dict(modulation=GATE), in_channels=4).eval()
    with pytest.raises(ValueError, match='statistics of 1 levels.*as a list'):
        model((torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)))
    model = AIBNeck(dict(modulation=GATE), in_channels=[4, 4]).eval()
    assert len(model((torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)))) == 2


@pytest.mark.parametrize(
    ('bottleneck', 'match'),
    [
        (dict(modulation=dict(GATE, beta=-1.0)), 'beta must be >= 0'),
        (dict(modulation=GATE, noise=dict(std=1.0)), 'noise of its own'),
    ],
)
def test_bad_fields(bottleneck, match):
    with pytest.raises(ValueError, match=match):
        AttentiveBottleneck(4, **bottleneck)


def test_features_of_other_channels_are_told():
    model = AIBNeck(dict(modulation=GATE), in_channels=4).eval()
    with pytest.raises(ValueError, match='in_channels=4 at .* with 5'):
        model([torch.rand(1, 5, 8, 8)])
