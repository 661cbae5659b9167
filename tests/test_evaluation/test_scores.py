from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmaib.evaluation import (
    catching_rate,
    contrast,
    energy_inside,
    iou,
    missing_rate,
    pointing_hit,
    roc_auc,
)


def some(seed, levels):
    """A map of so few values that many tie, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(9, 7, generator=generator)
    attention = (attention * levels).floor() / levels
    return attention, torch.rand(9, 7, generator=generator) < 0.3


SOME = pytest.mark.parametrize(
    ('seed', 'levels'), [*product(range(3), (2, 5, 10_000))]
)


@SOME
def test_auc_is_the_share_of_pairs_in_order(seed, levels):
    attention, mask = some(seed, levels)
    pairs = [*product(attention[mask].tolist(), attention[~mask].tolist())]
    wins = sum((a > b) + (a == b) / 2 for a, b in pairs)
    auc = roc_auc(attention, mask)
    assert auc == pytest.approx(wins / len(pairs), abs=1e-12)
    theirs = roc_auc_score(mask.flatten(), attention.flatten())
    assert auc == pytest.approx(theirs, abs=1e-12)
    assert roc_auc(-attention, mask) == pytest.approx(1 - auc, abs=1e-12)


def test_auc_of_more_positions_than_float32_counts_in_halves():
    """The mean rank of the ties is 2^23 + 1.5."""
    attention = torch.ones(2**24 + 1)
    attention[0] = 0
    mask = attention == 0
    mask[1] = True
    # one of the two loses all, the other ties with all
    assert roc_auc(attention, mask) == 0.25


@pytest.mark.parametrize('value', [0.0, 0.3, 1.0])
def test_a_map_of_one_value_is_chance(value):
    _, mask = some(0, 5)
    attention = torch.full((9, 7), value)
    assert roc_auc(attention, mask) == 0.5
    share = mask.double().mean().item()
    assert energy_inside(attention, mask) == pytest.approx(share, abs=1e-7)
    assert pointing_hit(attention, mask, 0) == pytest.approx(share, abs=1e-7)
    assert contrast(attention) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(('inside', 'count'), [(False, 0), (True, 63)])
def test_auc_needs_both_sides(inside, count):
    mask = torch.full((9, 7), inside)
    with pytest.raises(ValueError, match=f'outside, got {count} of 63'):
        roc_auc(torch.rand(9, 7), mask)


@pytest.mark.parametrize('inside', [False, True])
def test_other_scores_of_nothing_and_of_everything(inside):
    attention, mask = torch.rand(9, 7), torch.full((9, 7), inside)
    share = energy_inside(attention, mask)
    assert share == pytest.approx(float(inside), abs=1e-12)
    for tolerance in (0, 15, 1_000_000):
        assert pointing_hit(attention, mask, tolerance) == inside


@SOME
def test_energy_and_contrast_are_numpys(seed, levels):
    attention, mask = some(seed, levels)
    a, inside = attention.double().numpy(), mask.numpy()
    share = a[inside].sum() / a.sum()
    assert energy_inside(attention, mask) == pytest.approx(share, abs=1e-12)
    assert contrast(attention) == pytest.approx(np.std(a), abs=1e-12)


@pytest.mark.parametrize('tolerance', [0, 1, 1.5, 2, 3])
@SOME
def test_pointing_is_the_share_of_peaks_near_the_mask(seed, levels, tolerance):
    attention, _ = some(seed, levels)
    mask = torch.zeros(9, 7, dtype=torch.bool)
    mask[seed : seed + 2, 3:5] = True
    mask[8, 0] = True
    top = attention.max()
    peaks = [p for p in product(range(9), range(7)) if attention[p] == top]
    near = [
        any(
            (y - p[0]) ** 2 + (x - p[1]) ** 2 <= tolerance**2
            for y, x in product(range(9), range(7))
            if mask[y, x]
        )
        for p in peaks
    ]
    share = sum(near) / len(near)
    assert pointing_hit(attention, mask, tolerance) == pytest.approx(share)


def test_a_peak_at_the_tolerance_hits_and_beyond_it_misses():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[20, 5] = True
    for position, hit in {(29, 17): 1, (20, 20): 1, (20, 21): 0, (31, 16): 0,
                          (20, 5): 1}.items():  # fmt: skip
        attention = torch.rand(40, 40)
        attention[position] = 2
        assert pointing_hit(attention, mask) == hit, position
    # of two highest positions one
    attention[20, 21] = 2
    assert pointing_hit(attention, mask) == 0.5


@pytest.mark.parametrize('seed', range(20))
def test_the_iou_is_intersection_over_union(seed):
    """Proposition 1 of [RECT], on random masks of any density."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(2, 1, 1, generator=generator)
    a, b = torch.rand(2, 9, 7, generator=generator) < density
    signs = 2 * a.int() - 1, 2 * b.int() - 1
    both = sum(x and y for x, y in zip(a.flatten(), b.flatten()))
    either = sum(x or y for x, y in zip(a.flatten(), b.flatten()))
    assert iou(*signs) == pytest.approx(float(both / either))
    apart = sum(x != y for x, y in zip(a.flatten(), b.flatten()))
    assert missing_rate(*signs) == pytest.approx(float(apart) / 63)
    assert catching_rate(*signs) == pytest.approx(1 - 2 * float(apart) / 63)


def test_rates_at_their_ends():
    some = 2 * (torch.rand(9, 7) < 0.4).int() - 1
    assert catching_rate(some, some) == 1
    assert iou(some, some) == pytest.approx(1)
    assert missing_rate(some, some) == iou(some, -some) == 0
    assert catching_rate(some, -some) == -missing_rate(some, -some) == -1
    nowhere = -torch.ones(9, 7)
    assert iou(nowhere, nowhere) == 1
    assert iou(nowhere, some) == 0
