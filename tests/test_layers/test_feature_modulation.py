import pytest
import torch
import torch.nn.functional as F

from mmaib.layers import FeatureModulation
from mmaib.layers.feature_modulation import MODES

ADDING = [mode for mode in MODES if mode not in ('scale', 'concat')]


def reference(modulation, x, a):
    """Section 3.3.1 of [AIB], literally."""
    if modulation.mode == 'scale':
        return x * a
    if modulation.rescale:
        total = a.flatten(1).sum(1)[:, None, None, None]
        return x + x * (a * a[0].numel() / total)
    if modulation.mode == 'scale_residual':
        return x + x * a
    conv = modulation.expand[0]
    u = F.conv2d(a, conv.weight, conv.bias, padding=1).sigmoid()
    return x + u if modulation.mode == 'bias' else torch.cat([x, u], 1)


@pytest.mark.parametrize('mode', MODES)
def test_equals_the_papers_formula(mode):
    modulation = FeatureModulation(4, mode)
    x, a = torch.randn(2, 4, 5, 6), torch.rand(2, 1, 5, 6)
    out = modulation(x, a)
    assert torch.allclose(out, reference(modulation, x, a), atol=1e-6)
    assert out.size(1) == modulation.out_channels


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('batch', [1, 3])
def test_draws_as_a_batch_equal_a_loop(mode, batch):
    modulation = FeatureModulation(4, mode)
    x, maps = torch.randn(batch, 4, 5, 6), torch.rand(5 * batch, 1, 5, 6)
    loop = [modulation(x, a) for a in maps.split(batch)]
    out = modulation(x, maps)
    assert torch.allclose(out, torch.cat(loop), atol=1e-6)


@pytest.mark.parametrize('mode', ADDING)
def test_identity_is_the_host_at_first_and_can_leave_it(mode):
    modulation = FeatureModulation(4, mode, init='identity')
    x, a = torch.randn(2, 4, 5, 6), torch.rand(2, 1, 5, 6)
    out = modulation(x, a)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert modulation.gate.grad.abs() > 0


@pytest.mark.parametrize('mode', ['scale', 'concat'])
def test_identity_is_refused_where_nothing_is_added(mode):
    with pytest.raises(ValueError, match=f"identity.*mode='{mode}'"):
        FeatureModulation(4, mode, init='identity')


def test_a_zero_map_is_the_host_to_the_bit():
    x = torch.randn(2, 4, 5, 6)
    out = FeatureModulation(4)(x, torch.zeros(2, 1, 5, 6))
    assert torch.equal(out, x)


def test_a_map_that_lets_nothing_through_has_a_finite_gradient():
    """Eq. 7 of [RECT] would divide by zero."""
    a = torch.zeros(2, 1, 5, 6, requires_grad=True)
    x = torch.randn(2, 4, 5, 6)
    out = FeatureModulation(4, rescale=True)(x, a)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize('init', ['paper', 'identity'])
@pytest.mark.parametrize('mode', ADDING)
def test_features_keep_their_dtype(mode, init):
    modulation = FeatureModulation(4, mode, init)
    x = torch.randn(1, 4, 5, 6).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        out = modulation(x, torch.rand(1, 1, 5, 6))
    assert out.dtype == x.dtype


@pytest.mark.parametrize(
    ('field', 'value'),
    [('mode', 'scaled'), ('init', 'zero'), ('in_channels', 0)],
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        FeatureModulation(**{'in_channels': 4, field: value})


def test_a_rescaled_map_is_divided_by_its_mean():
    """Eq. 7 of [RECT], for the mode that it is of."""
    x, a = torch.randn(2, 4, 5, 6), torch.rand(2, 1, 5, 6)
    modulation = FeatureModulation(4, rescale=True)
    torch.testing.assert_close(modulation(x, a), reference(modulation, x, a))
    with pytest.raises(ValueError, match="rescale=True needs mode='scale_res"):
        FeatureModulation(4, 'scale', rescale=True)
