import pytest
import torch

from mmaib.layers import AttentiveBottleneck
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
    mean, _ = layer.attention(x)
    silent = layer(x)
    assert torch.allclose(silent[:, :3], x + x * mean)
    with Draws(attention=1, latent=1).open():
        assert not torch.equal(layer(x), layer(x))
