import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS
from torch import nn

from mmaib.cost import gmacs
from mmaib.functional import rectangle_window
from mmaib.layers import (
    AttentiveBottleneck,
    PositionWiseAttention,
    RectangularAttention,
    capture_attention,
    changed_maps,
)
from mmaib.layers.feature_modulation import MODES
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling.draws import Draws

SMALL = dict(channels=(4, 6, 8))
RECTANGLE = dict(type='mmaib.RectangularAttention', **SMALL)
POSITION_WISE = dict(type='mmaib.PositionWiseAttention', channels=4)
MAPS = dict(
    rectangle=RECTANGLE,
    moments=dict(RECTANGLE, pooling='moments'),
    position_wise=POSITION_WISE,
)
ANY_MAP = pytest.mark.parametrize('name', MAPS)


def stirred(layer):
    """With weights where training would have put some."""
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    return layer


def rectangular(in_channels=4, **fields):
    return stirred(RectangularAttention(in_channels, **SMALL, **fields))


def bottleneck(name='rectangle', **fields):
    attention = copy.deepcopy(MAPS[name])
    return stirred(AttentiveBottleneck(4, attention, **fields))


def reference(attention, x):
    """Appendix G of [RECT]; what an odd grid has left is pooled alone."""

    def pool(x):
        odd = [0, x.size(3) % 2, 0, x.size(2) % 2]
        return nn.functional.max_pool2d(nn.functional.pad(x, odd), 2)

    for conv, then in zip(attention.convs, (pool, pool, lambda x: x)):
        x = then(nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
                 .clamp(min=0))  # fmt: skip
    raw = x.flatten(2).mean(2) @ attention.mean.weight.t()
    raw = raw + attention.mean.bias + attention.first
    params = torch.cat(
        [
            1 / (1 + (-raw[:, :2]).exp()),
            (1 + raw[:, 2:4].exp()).log() + 0.03,
            raw[:, 4:],
        ],
        1,
    )
    return params


@pytest.mark.parametrize('size', [(16, 12), (9, 7), (5, 14)])
def test_is_appendix_g(size):
    attention = rectangular()
    x = torch.randn(3, 4, *size)
    params = reference(attention, x)
    torch.testing.assert_close(attention.rectangles(x), params)
    found = attention(x)
    assert found.std is None
    torch.testing.assert_close(found.geometry, params)
    expected = rectangle_window(params, size)
    torch.testing.assert_close(found.mean[:, 0], expected)


@pytest.mark.parametrize(
    ('layer', 'parameters'),
    [
        # 3x3 convolutions of 64, 128, 256, a linear layer of 5
        (RectangularAttention, 320 * 576 + 64 * 1152 + 128 * 2304 + 448
         + 256 * 5 + 5),
        (PositionWiseAttention, 321 * 80 + 2 * (720 * 80 + 80) + 721),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds_at_320_channels(layer, parameters):
    attention = layer(320)
    assert sum(p.numel() for p in attention.parameters()) == parameters
    x = torch.rand(1, 320, 8, 8)
    weights = [p for p in attention.parameters() if p.dim() > 1]
    # the grid stays 8x8, or is 8x8, 4x4, 2x2 and a vector
    pooled = layer is RectangularAttention
    sizes = [64, 16, 4, 1] if pooled else [64] * 4
    macs = sum(s * w.numel() for s, w in zip(sizes, weights))
    assert gmacs(lambda: attention(x)) == pytest.approx(macs / 1e9)


def test_the_position_wise_map_is_appendix_gs():
    """A product with the taps' shifted features, position by position."""
    attention, dilation = PositionWiseAttention(3, channels=5), 4
    x = torch.randn(2, 3, 9, 11)
    convs = [m for m in attention.layers if isinstance(m, nn.Conv2d)]
    assert [c.weight.shape[0] for c in convs] == [5, 5, 5, 1]
    out = torch.einsum('nchw,oc->nohw', x, convs[0].weight[:, :, 0, 0])
    out = out + convs[0].bias[:, None, None]
    for conv in convs[1:]:
        padded = nn.functional.pad(out.clamp(min=0), [dilation] * 4)
        out = conv.bias[:, None, None].expand(2, -1, 9, 11)
        for i in range(3):
            for j in range(3):
                rows = slice(i * dilation, i * dilation + 9)
                columns = slice(j * dilation, j * dilation + 11)
                out = out + torch.einsum(
                    'nchw,oc->nohw',
                    padded[..., rows, columns],
                    conv.weight[:, :, i, j],
                )
    found = attention(x)
    assert found.std is None
    torch.testing.assert_close(found.mean, 1 / (1 + (-out).exp()))


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
def test_the_first_window_is_around_the_centre_at_any_scale(scale):
    attention = RectangularAttention(4)
    params = attention.rectangles(scale * torch.randn(2, 4, 9, 9))
    expected = torch.tensor([0.5, 0.5, 0.35, 0.35, 0.0]).expand(2, 5)
    torch.testing.assert_close(params, expected)


def test_moments_tell_where_a_feature_is():
    """The mean over positions of a bright spot is the same anywhere."""
    mean, moments = rectangular(), rectangular(pooling='moments')
    moments.convs = mean.convs
    spots = torch.zeros(2, 4, 40, 40)  # far from what is padded
    spots[0, :, 14, 14] = spots[1, :, 22, 18] = 1.0
    first, second = mean.rectangles(spots)
    torch.testing.assert_close(first, second)
    first, second = moments.rectangles(spots)
    assert (first - second).abs().max() > 1e-4


def test_moments_are_means_of_features_times_their_place():
    attention = RectangularAttention(2, channels=(3,), pooling='moments')
    x = torch.randn(2, 2, 5, 7)
    (conv,) = attention.convs
    seen = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1).relu()
    expected = []
    for power, other in ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)):
        total = 0
        for i, y in enumerate(torch.linspace(-1, 1, 5)):
            for j, z in enumerate(torch.linspace(-1, 1, 7)):
                total = total + seen[:, :, i, j] * y**power * z**other
        expected.append(total / 35)
    expected = torch.cat(expected, 1)
    # the angle is a linear function of them
    for number in range(expected.size(1)):
        attention.mean.weight.data.zero_()[4, number] = 1.0
        found = attention.rectangles(x)[:, 4]
        torch.testing.assert_close(found, expected[:, number])


@ANY_MAP
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('anchors', [None, 5])
def test_every_map_with_every_modulation_learns(name, mode, anchors):
    layer = bottleneck(
        name,
        modulation=dict(mode=mode),
        quantizer=anchors and dict(num_anchors=anchors),
    ).train()
    x = torch.randn(2, 4, 9, 7)
    with Draws(attention=2).open(), collect() as aux:
        out = layer(x)
    assert len(out) == 4
    losses = [v for k, v in aux.mean().items() if 'loss' in k]
    (out.square().sum() + sum(losses)).backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or key.endswith('anchors'), key


@ANY_MAP
@pytest.mark.parametrize('anchors', [None, 5])
def test_every_map_behind_a_gate_learns(name, anchors):
    layer = bottleneck(
        name,
        modulation=dict(type='mmaib.InformationGate'),
        quantizer=anchors and dict(num_anchors=anchors),
    ).train()
    with Draws(attention=1).open(), collect() as aux:
        out = layer(torch.randn(2, 4, 9, 7))
    reports = aux.mean()
    assert reports['info_bits_per_image'] > 0
    assert 'attention_std' not in reports
    losses = [v for k, v in reports.items() if 'loss' in k]
    (out.square().sum() + sum(losses)).backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), key


def test_of_a_gate_nothing_passes_outside_of_the_rectangle():
    """Bits follow from the window: far from it they are none."""
    layer = bottleneck(modulation=dict(type='mmaib.InformationGate')).eval()
    attention = layer.attention
    nn.init.zeros_(attention.mean.weight)
    attention.first.copy_(
        torch.tensor([-2.0, -2.0, -2.0, -2.0, 0.0])  # the upper left
    )
    x, other = torch.randn(2, 1, 4, 24, 24)
    with capture_attention(layer) as maps:
        out = layer(x)
    bits = maps[0].bits[0][0, 0]
    assert bits[:8, :8].sum() > 10
    assert bits[12:].abs().max() < 1e-4
    # the mask decays by exp, so a trace of about 1e-30 is left
    far = out[..., 12:, 12:] - layer(other)[..., 12:, 12:]
    assert far.abs().max() < 1e-20


@pytest.mark.parametrize('name', ['rectangle', 'position_wise'])
def test_a_map_without_noise_has_equal_rows_for_its_draws(name):
    layer, x = bottleneck(name).eval(), torch.randn(3, 4, 9, 7)
    mean = layer.attend([x])[0]
    with Draws(attention=2, seed=0).open():
        drawn = layer.attend([x])[0]
    assert torch.equal(drawn, torch.cat([mean, mean]))


@ANY_MAP
@pytest.mark.parametrize('size', [(1, 9), (9, 1), (1, 1), (2, 3), (5, 5)])
def test_small_grids(name, size):
    layer = bottleneck(name).train()
    x = torch.randn(2, 4, *size, requires_grad=True)
    with Draws(attention=1).open(), collect():
        out = layer(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(
        p.grad is None or p.grad.isfinite().all() for p in layer.parameters()
    )


@ANY_MAP
def test_half_precision(name):
    layer = bottleneck(name).train()
    x = 30 * torch.randn(2, 4, 9, 7)
    with (
        torch.autocast('cpu', torch.bfloat16),
        Draws(attention=1).open(),
        collect() as aux,
    ):
        maps = layer.attend([x.bfloat16()])[0]
        out = layer.modulate(x.bfloat16(), maps)
    assert maps.dtype == torch.float32
    assert out.dtype == torch.bfloat16
    losses = [v for k, v in aux.mean().items() if 'loss' in k]
    (out.float().sum() + sum(losses)).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    whole = bottleneck(name).bfloat16().eval()
    assert whole.attend([x.bfloat16()])[0].dtype == torch.float32


def test_a_parents_init_cfg_leaves_the_window_where_it_is():
    from mmengine.model import Sequential

    attention = RectangularAttention(4)
    model = Sequential(
        attention, init_cfg=dict(type='Normal', layer='Linear', std=1.0)
    )
    model.init_weights()
    assert not attention.mean.weight.any()


def test_a_neck_of_several_levels_reports_a_rectangle_of_each():
    neck = AIBNeck(dict(attention=RECTANGLE), in_channels=4).train()
    x = [torch.randn(2, 4, side, side) for side in (8, 4, 2)]
    with Draws(attention=1).open(), collect() as aux:
        neck(x)
    params, sizes = zip(*aux.rectangles)
    assert sizes == ((8, 8), (4, 4), (2, 2))
    for level, found in zip(x, params):
        expected = neck.bottleneck.attention.rectangles(level)
        torch.testing.assert_close(found, expected)


@ANY_MAP
def test_a_mirrored_map_is_mirrored(name):
    layer, x = bottleneck(name).eval(), torch.randn(2, 4, 9, 7)
    maps = layer.attend([x])[0]
    with changed_maps(layer, 'mirror'):
        assert torch.equal(layer.attend([x])[0], maps.flip(-1))


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('in_channels', 0),
        ('channels', ()),
        ('channels', 64),
        ('channels', (4, 0)),
        ('sharpness', 0.0),
        ('pooling', 'max'),
    ],
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        RectangularAttention(**{'in_channels': 4, field: value})


def test_bad_fields_of_the_others():
    for field in ('in_channels', 'channels'):
        with pytest.raises(ValueError, match=field):
            PositionWiseAttention(**{'in_channels': 4, field: 0})
    with pytest.raises(ValueError, match=r'beta=0.1.*RectangularAttention'):
        AttentiveBottleneck(4, RECTANGLE, beta=0.1)


@pytest.mark.parametrize('name', ['pw', 'rect'])
def test_draws_of_a_map_without_noise_are_refused(name):
    """They would be all alike, and their mutual information 0."""
    path = next(CONFIGS.glob(f'sample/cluttered-digits/{name}_vgg_*.py'))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.test_draws = dict(attention=4, uncertainty=True)
    with pytest.raises(ValueError, match=r'test_draws\.attention=4: no map'):
        MODELS.build(cfg.model)
    # with a gate they differ
    gated = Config.fromfile(path.with_name(f'pw-gate{path.name[len(name) :]}'))
    gated.model.test_draws = cfg.model.test_draws
    MODELS.build(gated.model)
