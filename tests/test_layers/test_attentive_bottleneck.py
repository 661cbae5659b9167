import math
import statistics

import pytest
import torch

from mmaib.layers import AttentiveBottleneck, MapDistribution
from mmaib.losses import collect
from mmaib.sampling.draws import Draws


@pytest.mark.parametrize('mode', ['additive', 'propagated'])
def test_the_map_is_of_the_features_without_noise(mode):
    """Each of L_a maps with each of L_z noises, against a loop."""
    torch.manual_seed(0)
    layer = AttentiveBottleneck(3, noise=dict(mode=mode)).eval()
    x, maps = torch.randn(2, 3, 4, 4), torch.rand(3 * 2, 1, 4, 4)
    with Draws(latent=2, seed=1).open():
        out = layer.modulate(x, maps)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2 * 3 * 2, 3, 4, 4, generator=generator)
    for z in range(2):
        for a in range(3):
            for n in range(2):
                row = 6 * z + 2 * a + n
                if mode == 'additive':
                    noisy = x[n] + noise[row]
                else:
                    noisy = torch.cat([x[n], noise[row]])
                expected = noisy + noisy * maps[2 * a + n]
                assert torch.allclose(out[row], expected, atol=1e-6)
    mean = layer.attention(x).mean
    silent = layer(x)
    assert torch.allclose(silent[:, :3], x + x * mean)
    with Draws(attention=1, latent=1).open():
        assert not torch.equal(layer(x), layer(x))


class Given(torch.nn.Module):
    """A map that is given, in place of one that is made."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, x):
        return MapDistribution(self.mean, torch.full_like(self.mean, 0.25))


def test_monitors_are_of_each_image_and_the_kl_of_the_map():
    """Images that differ in their level have no contrast by that."""
    first = [0.0, 0.0199, 0.0201, 0.5]
    second = [0.9799, 0.9801, 1.0, 0.9]
    mean = torch.tensor([first, second]).view(2, 1, 2, 2)
    layer = AttentiveBottleneck(3, beta=0.5).train()
    layer.attention = Given(mean)
    with collect() as aux:
        layer(torch.rand(2, 3, 2, 2))
    found = {name: float(value) for name, value in aux.mean().items()}
    contrast = sum(map(statistics.pstdev, (first, second))) / 2
    kl = sum(
        0.5 * (m**2 + 0.25**2 - 1) - math.log(0.25) for m in first + second
    )
    assert found == pytest.approx(
        {
            'attention_mean': sum(first + second) / 8,
            'attention_std': 0.25,
            'attention_contrast': contrast,
            'attention_saturated': 4 / 8,
            'loss_kl_map': 0.5 * kl / 8,
            'kl_map_nats': kl / 8,
        },
        rel=1e-5,
    )
