import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmaib.layers import GaussianEncoder
from mmaib.losses import collect
from mmaib.sampling.draws import Draws

SHAPES = {'linear': (7, 6), 'conv1x1': (2, 6, 5, 4), 'conv3x3': (2, 6, 5, 4)}


def randomised(**kwargs):
    encoder = GaussianEncoder(6, 3, **kwargs)
    torch.nn.init.normal_(encoder.std.weight)
    return encoder


@pytest.mark.parametrize('trunk', SHAPES)
def test_draws_follow_the_stated_distribution(trunk):
    encoder = randomised(trunk=trunk).eval()
    x = torch.randn(SHAPES[trunk])
    with torch.no_grad():
        mean = encoder(x)
        assert torch.equal(mean, encoder.mean(x).relu())
        with Draws(latent=4000).open():
            draws = encoder(x).unflatten(0, (4000, -1))
        std = torch.nn.functional.softplus(encoder.std(x) - 5) + 1e-4
    error = std / 4000**0.5
    assert ((draws.mean(0) - mean).abs() < 5 * error + 1e-6).all()
    assert torch.allclose(draws.std(0), std, rtol=0.1)
    assert draws.shape[1:] == (x.size(0), 3, *x.shape[2:])


@pytest.mark.parametrize('trunk', SHAPES)
def test_reports_the_mean_kl(trunk):
    encoder = randomised(trunk=trunk, beta=0.5, loss_name='loss_kl_x')
    x = torch.randn(SHAPES[trunk])
    with collect() as aux:
        encoder(x)
    std = torch.nn.functional.softplus(encoder.std(x) - 5) + 1e-4
    posterior = Normal(encoder.mean(x).relu(), std)
    kl = kl_divergence(posterior, Normal(0.0, 1.0))
    total, kl = kl.sum(1).mean(), kl.mean()
    reports = aux.mean()
    assert torch.allclose(reports['kl_nats'], kl)
    assert torch.allclose(reports['kl_nats_sum'], total)
    assert torch.allclose(reports['loss_kl_x'], 0.5 * kl)


def test_no_rois_give_a_zero_that_stays_in_the_graph():
    encoder = GaussianEncoder(6, 3)
    with Draws(latent=1).open(), collect() as aux:
        z = encoder(torch.empty(0, 6))
    loss = aux.mean()['loss_kl']
    (loss + z.sum()).backward()
    assert float(loss) == 0
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize('raw', [-1e4, 1e4])
def test_extreme_statistics_stay_finite(raw):
    encoder = GaussianEncoder(6, 3)
    torch.nn.init.constant_(encoder.std.bias, raw)
    with Draws(latent=1).open(), collect() as aux:
        z = encoder(torch.randn(7, 6))
    (z.sum() + aux.mean()['loss_kl']).backward()
    assert z.isfinite().all()
    assert aux.mean()['loss_kl'].isfinite()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_training_at_the_mean_has_no_noise():
    encoder = GaussianEncoder(6, 3).train()
    x = torch.randn(7, 6)
    with collect() as aux:
        assert torch.equal(encoder(x), encoder(x))
    assert 'loss_kl' in aux.mean()


def test_kl_in_float32_under_autocast():
    encoder = GaussianEncoder(6, 3)
    with torch.autocast('cpu', torch.bfloat16), collect() as aux:
        z = encoder(torch.randn(7, 6))
    assert aux.mean()['loss_kl'].dtype == torch.float32
    assert z.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('beta', -0.01),
        ('trunk', 'mlp'),
        ('latent_channels', 0),
        ('std_shift', -5.0),
    ],
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        GaussianEncoder(
            **{'in_channels': 4, 'latent_channels': 4, field: value}
        )


@pytest.mark.parametrize('source', ['feature', 'mean'])
def test_the_std_is_made_of_what_its_field_says(source):
    """Of as many channels, so that shapes cannot show it."""
    encoder = GaussianEncoder(4, 4, std_source=source, std_shift=1.0)
    torch.nn.init.normal_(encoder.std.weight)
    x = torch.randn(5, 4)
    mean = encoder.mean(x).relu()
    given = x if source == 'feature' else mean
    std = torch.nn.functional.softplus(encoder.std(given) - 1) + 1e-4
    with Draws(latent=1, seed=3).open():
        z = encoder(x)
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(z, mean + std * noise)
