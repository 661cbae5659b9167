"""Baselines against brute force."""

import pytest
import torch

from mmaib.explanations import Target, baselines

SIZE = (8, 10)
TARGET = Target(0, 'x', 1.0, lambda x: x, box=torch.tensor([2.0, 1, 8, 7]))


def generator():
    return torch.Generator().manual_seed(0)


def test_maps_of_gradients_by_hand():
    x = torch.randn(1, 3, 4, 5, generator=generator())
    g = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    made = {
        'grad-cam': lambda c, i, j: g[0, c].mean() * x[0, c, i, j],
        'layer-cam': lambda c, i, j: max(g[0, c, i, j], 0) * x[0, c, i, j],
        'odam': lambda c, i, j: g[0, c, i, j] * x[0, c, i, j],
    }
    for name, term in made.items():
        found = baselines.BY_GRADIENT[name](x, g)[0, 0]
        for i in range(4):
            for j in range(5):
                value = sum(float(term(c, i, j)) for c in range(3))
                assert found[i, j] == pytest.approx(max(value, 0), abs=1e-5)


def test_priors_lie_on_the_box():
    centre = baselines.centre(TARGET, SIZE)
    row, column = divmod(int(centre.argmax()), SIZE[1])
    assert (row, column) in {(3, 4), (3, 5), (4, 4), (4, 5)}
    box = baselines.box(TARGET, SIZE)
    assert box.sum() == 36
    assert box[1:7, 2:8].all()


def test_d_rise_finds_the_pixels_that_count():
    images = torch.ones(1, 3, 32, 32)

    def score(images):
        return images[:, 0, 8:12, 20:24].mean((1, 2))

    found = baselines.d_rise(score, images, masks=200, grid=8)
    assert torch.equal(
        found, baselines.d_rise(score, images, masks=200, grid=8)
    )
    row, column = divmod(int(found.argmax()), 32)
    assert 6 <= row <= 13
    assert 18 <= column <= 25
