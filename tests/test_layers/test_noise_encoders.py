import pytest
import torch
from torch import nn

from mmaib.layers import (
    AdditiveNoiseEncoder,
    AttentiveBottleneck,
    FeatureNoise,
    PropagatedNoiseEncoder,
)
from mmaib.losses import collect
from mmaib.sampling.draws import Draws

SHAPES = {'linear': (3, 4), 'conv1x1': (3, 4, 5, 5), 'conv3x3': (3, 4, 5, 5)}
BOTH = pytest.mark.parametrize(
    'kind', [AdditiveNoiseEncoder, PropagatedNoiseEncoder]
)


def host_layer(trunk):
    if trunk == 'linear':
        return nn.Linear(4, 6)
    kernel = int(trunk[-1])
    return nn.Conv2d(4, 6, kernel, padding=kernel // 2)


@BOTH
@pytest.mark.parametrize('trunk', SHAPES)
def test_draws_follow_a_monte_carlo_reference(kind, trunk):
    """Through a linear layer noise is Gaussian: its mean and its variance
    are those of the noise written out by hand."""
    encoder = kind(4, 6, trunk, with_mean=False, noise_std=0.7).double()
    layer = host_layer(trunk).double()
    mixing = torch.eye(4, dtype=torch.double)
    if kind is PropagatedNoiseEncoder:
        nn.init.normal_(encoder.propagate.weight)
        mixing = encoder.propagate.weight.detach().view(4, 4)
    x = torch.randn(SHAPES[trunk], dtype=torch.double)
    with torch.no_grad():
        with Draws(latent=4000).open():
            z = encoder(x, layer)
        noise = 0.7 * torch.randn(4000, *x.shape, dtype=torch.double)
        noise = torch.einsum('oc,lnc...->lno...', mixing, noise)
        reference = layer((x + noise).flatten(0, 1))
        mean = layer(x)
    draws = z.unflatten(0, (4000, 3))
    std = reference.unflatten(0, (4000, 3)).std(0)
    torch.testing.assert_close(draws.std(0), std, rtol=0.12, atol=0)
    assert ((draws.mean(0) - mean) / (std / 4000**0.5)).abs().max() < 5


def test_propagation_is_a_layer_on_the_concatenation():
    """W x + W' e of Fig. 5(c), with W' = W P."""
    encoder = PropagatedNoiseEncoder(4, 6, with_mean=False)
    nn.init.normal_(encoder.propagate.weight)
    layer, x, noise = (
        host_layer('linear'),
        torch.randn(3, 4),
        torch.randn(3, 4),
    )
    wide = nn.Linear(8, 6)
    with torch.no_grad():
        beside = layer.weight @ encoder.propagate.weight
        wide.weight.copy_(torch.cat([layer.weight, beside], dim=1))
        wide.bias.copy_(layer.bias)
        torch.testing.assert_close(
            layer(x + encoder.propagated(noise)),
            wide(torch.cat([x, noise], 1)),
        )


@BOTH
@pytest.mark.parametrize('trunk', SHAPES)
def test_every_parameter_learns_and_evaluation_is_without_noise(kind, trunk):
    encoder = kind(4, 6, trunk, beta=0.5)
    x = torch.randn(SHAPES[trunk])
    with Draws(latent=1).open(), collect() as aux:
        z = encoder(x)
    losses = aux.mean()
    assert losses.keys() == {'loss_kl', 'loss_critic'}
    (sum(losses.values()) + z.sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    encoder.eval()
    assert torch.equal(encoder(x), encoder.mean(x).relu())
    drawn = Draws(latent=2, seed=1)
    with drawn.open():
        first = encoder(x)
    with drawn.open():
        again = encoder(x)
    assert first.shape[0] == 6
    assert torch.equal(first, again)


def test_propagated_noise_starts_as_the_host():
    encoder = PropagatedNoiseEncoder(4, 6, with_mean=False).train()
    layer, x = host_layer('linear'), torch.randn(3, 4)
    with Draws(latent=1).open():
        assert torch.equal(encoder(x, layer), layer(x))


@BOTH
def test_without_a_std_of_its_own_it_draws_nothing(kind):
    """The noise is then on the features in front of the modulation."""
    encoder, x = kind(4, 6, noise_std=0.0), torch.randn(3, 4)
    with Draws(latent=2).open():
        assert torch.equal(encoder(x), encoder.mean(x).relu())


@BOTH
@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(critic=dict(dropout=1.0)), 'dropout must be below 1'),
        (dict(critic='adversarial'), 'critic must be a dict'),
        (dict(noise_std=-1.0), 'noise_std must be >= 0'),
        (dict(trunk='conv5x5'), 'trunk must be one of'),
    ],
)
def test_bad_fields(kind, fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kind(4, 6, **fields)


# Noise on a bottleneck's features


def test_additive_noise_has_the_std():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    with Draws(latent=4000).open():
        drawn = FeatureNoise(3, std=0.5)(x).unflatten(0, (4000, 2))
    assert torch.allclose(drawn.mean(0), x, atol=5 * 0.5 / 4000**0.5)
    assert drawn.std(0).mean() == pytest.approx(0.5, rel=0.02)
    assert torch.equal(FeatureNoise(3)(x), x)


def test_propagated_noise_stands_beside_the_features():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    noise = FeatureNoise(3, mode='propagated', std=2.0)
    with Draws(latent=3000).open():
        drawn = noise(x)
    assert drawn.shape == (6000, 6, 4, 4)
    assert torch.equal(drawn[:, :3], x.repeat(3000, 1, 1, 1))
    assert drawn[:, 3:].std() == pytest.approx(2.0, rel=0.02)
    silent = noise(x)
    assert torch.equal(silent[:, :3], x)
    assert not silent[:, 3:].any()


def test_bad_fields_of_noise_on_features():
    with pytest.raises(ValueError, match=r'noise\.mode must be one of'):
        FeatureNoise(3, mode='multiplied')
    with pytest.raises(ValueError, match=r'noise\.std must be >= 0'):
        AttentiveBottleneck(3, noise=dict(std=-1.0))
