import pytest
import torch

from mmaib.layers import AttentiveBottleneck, FeatureNoise
from mmaib.sampling.draws import Draws


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


def test_bad_fields():
    with pytest.raises(ValueError, match=r'noise\.mode must be one of'):
        FeatureNoise(3, mode='multiplied')
    with pytest.raises(ValueError, match=r'noise\.std must be >= 0'):
        AttentiveBottleneck(3, noise=dict(std=-1.0))
