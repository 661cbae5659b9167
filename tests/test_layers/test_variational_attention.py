import pytest
import torch
import torch.nn.functional as F
from mmengine.model import Sequential

from mmaib.layers import AttentiveBottleneck, VariationalAttention


@pytest.mark.parametrize('std_source', ['feature', 'mean'])
@pytest.mark.parametrize('std_kernel', [1, 3])
def test_equals_the_papers_formula(std_source, std_kernel):
    attention = VariationalAttention(6, std_source, std_kernel)
    torch.nn.init.normal_(attention.std_conv.weight)
    x = torch.randn(2, 6, 9, 7)
    maps = attention(x)
    mean, std = maps.mean, maps.std
    conv = attention.mean_conv
    expected = 1 / (
        1 + (-F.conv2d(x, conv.weight, conv.bias, padding=1)).exp()
    )
    assert torch.allclose(mean, expected, atol=1e-6)
    source = x if std_source == 'feature' else mean
    conv = attention.std_conv
    raw = F.conv2d(source, conv.weight, conv.bias, padding=std_kernel // 2)
    assert torch.allclose(std, (1 + (raw - 5).exp()).log() + 1e-4, atol=1e-6)
    assert mean.shape == std.shape == (2, 1, 9, 7)


def test_mean_mode_computes_no_std():
    bottleneck = AttentiveBottleneck(6).eval()
    x = torch.randn(2, 6, 9, 7)
    mean = bottleneck.attention(x).mean
    del bottleneck.attention.std_conv
    assert torch.equal(bottleneck.attend([x])[0], mean)


def test_std_starts_small_whatever_the_features_scale():
    attention = VariationalAttention(4)
    for scale in (1e-6, 1.0, 1e4):
        std = attention(torch.randn(1, 4, 5, 5) * scale).std
        assert torch.allclose(std, torch.tensor(0.0068153), atol=1e-6)


def test_normalised_logits_use_the_whole_range_at_any_scale():
    attention = VariationalAttention(8, logit_norm=True)
    x = torch.randn(4, 8, 16, 16)
    # a common mode of features of RMS 24, as an untrained FPN gives them
    mean = attention(24 * (x + 1)).mean
    literal = VariationalAttention(8)
    literal.load_state_dict(attention.state_dict(), strict=False)
    saturated = literal(24 * (x + 1)).mean
    assert 0.25 < mean.std() < 0.35
    assert ((mean - 0.5).abs() > 0.48).float().mean() < 0.1
    assert ((saturated - 0.5).abs() > 0.48).float().mean() > 0.5


def test_logits_normalised_over_a_batch():
    attention = VariationalAttention(8, logit_norm='batch')
    x = 24 * (torch.randn(4, 8, 16, 16) + 1)
    logit = F.conv2d(x, attention.mean_conv.weight, padding=1)
    expected = (logit - logit.mean()) / logit.var(correction=0).sqrt()
    mean = attention(x).mean
    torch.testing.assert_close(mean, expected.sigmoid(), atol=1e-4, rtol=0)
    assert attention.eval()(x).mean.std() > mean.std()  # by its statistics


@pytest.mark.parametrize('kind', ['model', 'layer'])
def test_a_parents_init_cfg_leaves_the_std_at_zero(kind):
    """A model's own init_cfg, as of mmpretrain's Swin, takes every layer
    in it; a layer's own is meant."""
    init_cfg = dict(type='Normal', layer='Conv2d', std=1.0)
    attention = VariationalAttention(
        4, init_cfg=init_cfg if kind == 'layer' else None
    )
    model = Sequential(
        attention, init_cfg=init_cfg if kind == 'model' else None
    )
    model.init_weights()
    assert attention.mean_conv.weight.std() > 0.5
    assert attention.std_conv.weight.any() == (kind == 'layer')
    trained = torch.randn_like(attention.std_conv.weight)
    attention.std_conv.weight.data.copy_(trained)
    model.init_weights()
    if kind == 'model':
        assert torch.equal(attention.std_conv.weight, trained)


def test_float32_under_autocast():
    attention = VariationalAttention(4)
    with torch.autocast('cpu', torch.bfloat16):
        maps = attention(torch.randn(1, 4, 5, 5))
        std = maps.std
    assert maps.mean.dtype == std.dtype == torch.float32


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('in_channels', 0),
        ('std_source', 'map'),
        ('std_kernel', 2),
        ('std_shift', -1.0),
        ('logit_norm', 'BN'),
        ('mean_bias', -1.0),
    ],
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        VariationalAttention(**{'in_channels': 4, field: value})


def test_a_bias_opens_the_map_at_the_start():
    attention = VariationalAttention(in_channels=4, mean_bias=2.0)
    for _ in range(2):
        mean = attention(torch.zeros(1, 4, 3, 3)).mean
        torch.testing.assert_close(
            mean, torch.full((1, 1, 3, 3), 2.0).sigmoid()
        )
        attention.init_weights()
    with pytest.raises(ValueError, match='mean_bias=2.0: logit_norm'):
        VariationalAttention(in_channels=4, mean_bias=2.0, logit_norm=True)


@pytest.mark.parametrize('std_source', ['feature', 'mean'])
def test_a_model_in_half_precision(std_source):
    layer = VariationalAttention(4, std_source=std_source).bfloat16()
    maps = layer(torch.randn(1, 4, 5, 5, dtype=torch.bfloat16))
    assert maps.mean.dtype == maps.std.dtype == torch.float32
