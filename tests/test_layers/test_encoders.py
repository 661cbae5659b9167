"""What every encoder has of `LatentEncoder`, by the Gaussian one."""

import copy

import pytest
import torch

from mmaib.layers import GaussianEncoder
from mmaib.losses import collect
from mmaib.sampling.draws import Draws


@pytest.mark.parametrize('trunk', ['linear', 'conv1x1', 'conv3x3'])
def test_the_encoder_reports_both_losses(trunk):
    encoder = GaussianEncoder(
        4, 6, trunk, beta=0.5, loss_name='loss_kl_cls', critic=dict()
    )
    shape = (3, 4) if trunk == 'linear' else (3, 4, 5, 5)
    with Draws(latent=1).open(), collect() as aux:
        encoder(torch.randn(shape))
    losses = aux.mean()
    assert losses.keys() == {
        'loss_kl_cls',
        'loss_critic_cls',
        'kl_nats',
        'kl_nats_sum',
    }
    assert losses['loss_kl_cls'] < 0
    (losses['loss_kl_cls'] + losses['loss_critic_cls']).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
    # evaluated, it is the encoder without its critic
    plain = GaussianEncoder(4, 6, trunk)
    plain.load_state_dict(encoder.state_dict(), strict=False)
    x = torch.randn(shape)
    assert torch.equal(encoder.eval()(x), plain.eval()(x))
    assert copy.deepcopy(encoder).critic is not None


def test_a_mean_given_by_the_host():
    encoder = GaussianEncoder(6, 3, with_mean=False).eval()
    mean = torch.randn(7, 3)
    assert torch.equal(encoder(torch.randn(7, 6), lambda x: mean), mean)
    assert {n for n, _ in encoder.named_parameters()} == {
        'std.weight',
        'std.bias',
    }
    with pytest.raises(ValueError, match='with_mean=False'):
        encoder(torch.randn(7, 6))


@pytest.mark.parametrize(
    ('name', 'critics'),
    [
        ('loss_kl', 'loss_critic'),
        ('loss_kl_cls', 'loss_critic_cls'),
        ('loss_ib', 'loss_ib_critic'),
    ],
)
def test_the_critics_loss_has_a_key_of_its_own(name, critics):
    encoder = GaussianEncoder(6, 3, loss_name=name, critic=dict())
    with Draws(latent=1).open(), collect() as aux:
        encoder(torch.randn(7, 6))
    assert aux.mean().keys() == {name, critics, 'kl_nats', 'kl_nats_sum'}
