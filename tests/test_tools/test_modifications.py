"""Modifications against their definition, pixel by pixel."""

import cmath
import math
import sys

import pytest
import torch
from support import REPOSITORY

sys.path.insert(0, str(REPOSITORY / 'tools' / 'experiments'))
from modifications import (
    frequency_radius,
    hidden,
    modified,
    split_frequencies,
    stretched,
)


@pytest.mark.parametrize('size', [(32, 32), (9, 14), (64, 48)])
def test_radii_are_those_of_the_definition(size):
    """Wang et al.'s, where the image has 32 pixels a side."""
    height, width = size
    radius = frequency_radius(height, width)
    for row in range(height):
        for column in range(width):
            y = (row - height // 2) * 32 / height
            x = (column - width // 2) * 32 / width
            expected = math.sqrt(y * y + x * x)
            assert radius[row, column].item() == pytest.approx(expected)


@pytest.mark.parametrize('radius', [0, 4, 12, 100])
@pytest.mark.parametrize('size', [(32, 32), (17, 40)])
def test_low_and_high_frequencies_are_the_image(size, radius):
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    low, high = split_frequencies(image, radius)
    torch.testing.assert_close(low + high, image.float(), atol=1e-3, rtol=0)
    assert (low.abs().max() < 1e-3) == (radius == 0)
    assert (high.abs().max() < 1e-3) == (radius == 100)


def test_low_frequencies_by_the_transform_s_definition():
    image = torch.randint(256, (1, 6, 8), dtype=torch.uint8)
    height, width, radius = 6, 8, 8.0
    expected = torch.zeros(height, width)
    values = image[0].tolist()
    for u in range(-height // 2, height // 2):
        for v in range(-width // 2, width // 2):
            if math.hypot(u * 32 / height, v * 32 / width) >= radius:
                continue
            coefficient = sum(
                values[y][x]
                * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
                for y in range(height)
                for x in range(width)
            )
            for y in range(height):
                for x in range(width):
                    wave = cmath.exp(
                        2j * math.pi * (u * y / height + v * x / width)
                    )
                    value = coefficient * wave / (height * width)
                    expected[y, x] += value.real
    low, _ = split_frequencies(image, radius)
    torch.testing.assert_close(low[0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('size', 'block'), [((32, 32), (8, 8)), ((64, 96), (16, 24))]
)
def test_a_block_hides_a_rectangle_and_nothing_else(size, block):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    patch = torch.full((3, 5, 7), 200, dtype=torch.uint8)
    places = set()
    for seed in range(8):
        out = hidden(image, 8, torch.Generator().manual_seed(seed), patch)
        ys, xs = torch.nonzero(out[0], as_tuple=True)
        top, left = int(ys.min()), int(xs.min())
        places.add((top, left))
        expected = image.clone()
        expected[:, top : top + block[0], left : left + block[1]] = 200
        assert torch.equal(out, expected)
    assert len(places) > 4
    assert not image.any()


def test_a_block_lies_at_either_end():
    image, places = torch.zeros(1, 32, 32, dtype=torch.uint8), set()
    patch = torch.ones(1, 8, 8, dtype=torch.uint8)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        (rows,) = hidden(image, 31, generator, patch)[0].any(1).nonzero().T
        places.add(int(rows[0]))
    assert places == {0, 1}
    assert hidden(image, 32, generator, patch).all()


def test_a_colour_block_has_one_colour():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    out = hidden(image, 16, torch.Generator().manual_seed(1))
    inside = out.flatten(1)[:, out.sum(0).flatten() > 0]
    assert inside.shape[1] == 256
    assert (inside == inside[:, :1]).all()
    assert len(inside[:, 0].unique()) == 3


def test_stretched_is_min_max():
    image = torch.randn(2, 5, 5)
    out = stretched(image)
    for channel, expected in zip(out, image):
        low, high = expected.min().item(), expected.max().item()
        for value, original in zip(channel.flatten(), expected.flatten()):
            exact = (original.item() - low) / (high - low) * 255
            assert abs(value.item() - exact) <= 0.51


def test_all_of_table_8_and_the_same_again():
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    patches = [torch.full((3, 32, 32), 7, dtype=torch.uint8)]
    first, again, other = (
        modified(image, torch.Generator().manual_seed(seed), patches)
        for seed in (0, 0, 1)
    )
    assert [*first] == [
        *(f'color p={p}' for p in (4, 8, 12, 16)),
        *(f'patch p={p}' for p in (4, 8, 12, 16)),
        'r > 4', 'r < 12',
    ]  # fmt: skip
    for name in first:
        assert first[name].dtype == torch.uint8
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], image)
    assert not torch.equal(first['patch p=8'], other['patch p=8'])
    assert len(modified(image, torch.Generator())) == 6
