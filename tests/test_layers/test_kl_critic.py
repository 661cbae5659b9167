import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmaib.functional import adversarial_kl, critic_loss
from mmaib.layers import GaussianEncoder, KLCritic


def two_steps(critic, encoder, x, prior):
    """[AIB]'s recipe: critic with the encoder fixed, encoder with the critic
    fixed, both from the same weights."""
    with torch.no_grad():
        fixed = encoder(x)
    ascent = -(
        critic.net(prior).sigmoid().log().mean()
        + (1 - critic.net(fixed).sigmoid()).log().mean()
    )
    of_critic = torch.autograd.grad(ascent, list(critic.parameters()))
    descent = (1 - critic.net(encoder(x)).sigmoid()).log().mean()
    of_encoder = torch.autograd.grad(descent, list(encoder.parameters()))
    return of_critic, of_encoder


def test_one_backward_is_two_separate_steps(monkeypatch):
    critic, encoder = KLCritic(6, dropout=0.0), nn.Linear(4, 6)
    x, prior = torch.randn(9, 4), torch.randn(9, 6)
    of_critic, of_encoder = two_steps(critic, encoder, x, prior)
    monkeypatch.setattr(torch, 'randn_like', lambda rows: prior)
    kl, loss = critic(encoder(x))
    (kl + loss).backward()
    for part, gradients in ((critic, of_critic), (encoder, of_encoder)):
        for parameter, gradient in zip(part.parameters(), gradients):
            assert gradient.abs().max() > 0
            torch.testing.assert_close(
                parameter.grad, gradient, rtol=1e-6, atol=1e-6
            )


def test_an_encoder_steps_once_in_num_steps_of_the_critic(monkeypatch):
    critic, encoder = KLCritic(6, dropout=0.0, num_steps=4), nn.Linear(4, 6)
    x, prior = torch.randn(9, 4), torch.randn(9, 6)
    of_critic, of_encoder = two_steps(critic, encoder, x, prior)
    monkeypatch.setattr(torch, 'randn_like', lambda rows: prior)
    torch.manual_seed(0)
    steps, values = 0, set()
    for _ in range(400):
        kl, loss = critic(encoder(x))
        values.add(kl.item())
        critic.zero_grad()
        encoder.zero_grad()
        (kl + loss).backward()
        for parameter, gradient in zip(critic.parameters(), of_critic):
            torch.testing.assert_close(
                parameter.grad, gradient, rtol=1e-6, atol=1e-6
            )
        if encoder.weight.grad is not None:
            steps += 1
            torch.testing.assert_close(
                encoder.weight.grad, of_encoder[0], rtol=1e-6, atol=1e-6
            )
    assert len(values) == 1  # reported each time
    assert 75 <= steps <= 125


def test_each_part_moves_its_own_weights_alone():
    critic, encoder = KLCritic(6), nn.Linear(4, 6)
    kl, loss = critic(encoder(torch.randn(9, 4)))
    kl.backward()
    assert all(p.grad is None for p in critic.parameters())
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.zero_grad()
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters())
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize(
    ('shift', 'spread', 'saturating'),
    [(2.0, 1.0, True), (0.0, 0.3, True), (2.0, 1.0, False)],
)
def test_a_latent_is_driven_to_the_prior(shift, spread, saturating):
    critic = KLCritic(2, dropout=0.0, saturating=saturating)
    mean = nn.Parameter(torch.full((2,), shift))
    scale = nn.Parameter(torch.full((2,), math.log(spread)))
    optimizer = torch.optim.Adam(
        [
            dict(params=[mean, scale], lr=5e-3),
            dict(params=critic.parameters(), lr=2e-2),
        ]
    )

    def distance():
        prior = torch.distributions.Normal(0, 1)
        latent = torch.distributions.Normal(mean, scale.exp())
        return torch.distributions.kl_divergence(latent, prior).mean().item()

    before = distance()
    for _ in range(1500):
        z = mean + scale.exp() * torch.randn(256, 2)
        kl, loss = critic(z)
        optimizer.zero_grad()
        (kl + loss).backward()
        optimizer.step()
    assert before > 0.5
    assert distance() < 0.1
    assert loss.item() == pytest.approx(2 * math.log(2), abs=0.1)


def test_maps_are_read_by_position():
    critic = KLCritic(3, dropout=0.0, max_rows=50)
    z = torch.randn(2, 3, 4, 5)
    rows = critic._rows(z)
    assert rows.shape == (40, 3)
    assert torch.equal(rows[1], z[0, :, 0, 1])
    many = critic._rows(torch.arange(300.0).view(1, 3, 10, 10))
    assert many.shape == (50, 3)
    assert len(many[:, 0].unique()) == 50
    kl, loss = critic(torch.randn(0, 3))
    assert kl == 0
    assert loss == 0


def test_rows_are_chosen_anew_each_time_from_all_images():
    critic = KLCritic(1, max_rows=50)
    z = torch.arange(400.0).view(4, 1, 10, 10)
    chosen = [critic._rows(z).flatten() for _ in range(20)]
    assert not torch.equal(*chosen[:2])
    counts = (torch.cat(chosen) // 100).long().bincount()
    assert len(counts) == 4
    assert counts.min() > 180  # of 250 expected


def test_dropout_stands_behind_each_leaky_relu():
    kinds = [type(layer) for layer in KLCritic(4, dropout=0.3).net]
    block = [nn.Linear, nn.LeakyReLU, nn.Dropout]
    assert kinds == [*block, *block, nn.Linear]
    rates = [layer.p for layer in KLCritic(4, dropout=0.3).net[2::3]]
    assert rates == [0.3, 0.3]


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(latent_channels=6), r"critic sets {'latent_channels': 6}"),
        (dict(dropout=1.0), 'dropout must be below 1'),
        (dict(max_rows=0), 'max_rows must be >= 1'),
        (dict(num_steps=0), 'num_steps must be >= 1'),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        GaussianEncoder(4, 6, critic=fields)


def test_eq_20_by_hand():
    prior, latent = torch.randn(7, 1), torch.randn(5, 1)
    eq_20 = prior.sigmoid().log().mean() + (1 - latent.sigmoid()).log().mean()
    torch.testing.assert_close(critic_loss(prior, latent), -eq_20)
    torch.testing.assert_close(
        adversarial_kl(latent), (1 - latent.sigmoid()).log().mean()
    )
    torch.testing.assert_close(
        adversarial_kl(latent, saturating=False),
        -latent.sigmoid().log().mean(),
    )
    # and by torch's own cross entropy, where a sigmoid would have saturated
    far = torch.tensor([[200.0]])
    reference = F.binary_cross_entropy_with_logits(far, torch.zeros(1, 1))
    assert critic_loss(far, far) == reference == 200
    assert critic_loss(prior[:0], latent[:0]) == 0


def test_where_the_critic_is_certain_one_form_still_pulls():
    logits = torch.tensor([[-30.0]], requires_grad=True)
    (of_paper,) = torch.autograd.grad(adversarial_kl(logits), logits)
    (usual,) = torch.autograd.grad(adversarial_kl(logits, False), logits)
    assert of_paper.abs() < 1e-12
    assert usual == -1
