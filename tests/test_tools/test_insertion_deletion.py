"""The referee of explanations against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch.nn import functional as F

from mmaib.explanations import Place, Settings, Target, baselines
from mmaib.explanations.bottleneck import optimised
from mmaib.functional import gate_information

SIZE = (8, 10)
TARGET = Target(0, 'x', 1.0, lambda x: x, box=torch.tensor([2.0, 1, 8, 7]))


@pytest.fixture
def referee(studies):
    import insertion_deletion

    return insertion_deletion


class Identity(torch.nn.Module):
    """A model whose features at the neck are its images."""

    with_neck = False

    def extract_feat(self, images):
        return (images,)


def evidence(features):
    """Depends on rows 2 to 4 and columns 3 to 6 alone."""
    mean = features[0][:, :, 2:5, 3:7].mean((1, 2, 3))
    return torch.nn.functional.logsigmoid((mean - 1.4) * 16)


@pytest.fixture
def known():
    place = Place(Identity())
    images = torch.zeros(1, 3, 12, 16)
    images[:, :, 2:5, 3:7] = 2.0
    target = Target(0, 'patch', 0.99, evidence)
    moments = [(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))]
    return target, place, (images,), images, moments


def test_insertion_and_deletion_of_a_mean(referee):
    images, blanked = torch.ones(1, 3, *SIZE), torch.zeros(1, 3, *SIZE)
    order = torch.arange(80.0).view(SIZE)
    inserted, deleted = [], []
    for count in np.linspace(0, 40, 13).astype(int):
        inserted.append(count / 80)
        deleted.append(1 - count / 80)
    (found,) = referee.insertion_deletion(
        order, images, blanked, 40, [lambda x: x.mean((1, 2, 3))]
    )
    assert found[0] == pytest.approx(np.trapezoid(inserted) / 12)
    assert found[1] == pytest.approx(np.trapezoid(deleted) / 12)
    shown = referee.changed_images(order, images, blanked, 40)[1]
    assert shown[-1, 0].flatten()[40:].all()
    assert not shown[-1, 0].flatten()[:40].any()


def test_ties_are_broken_alike_for_every_map(referee):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, *SIZE, generator=generator)
    flat, other = (
        referee.changed_images(torch.full(SIZE, v), images, images * 0, 40)[1]
        for v in (0.0, 3.0)
    )
    assert torch.equal(flat, other)


def test_what_is_hidden_is_really_gone(referee):
    images = torch.zeros(1, 3, 200, 200)
    images[..., 60:140, 60:140] = 1.0  # survives a blur of 31 pixels

    def score(x):
        return (x[:, 0, 100, 100] > 0.4).float()

    assert score(images) == 1
    assert score(referee.blank(images, score)) == 0
    colour = referee.blank(images, lambda x: torch.ones(len(x)))  # never gone
    assert torch.allclose(colour, images.mean((2, 3), keepdim=True))


def test_where_a_map_lies(referee):
    order = torch.zeros(SIZE)
    order[2, 3], order[7, 9] = 3.0, 1.0
    own = baselines.box(TARGET, SIZE).bool()
    found = referee.location(order, own)
    assert found['energy'] == pytest.approx(0.75)
    assert found['area'] == pytest.approx(36 / 80)
    assert found['pointing'] == 1
    others = torch.zeros(SIZE).bool()
    assert math.isnan(referee.discrimination(order, own, others))
    others[7, 9] = True
    assert referee.discrimination(order, own, others) == pytest.approx(0.25)
    assert referee.rank_correlation(order, order) == pytest.approx(1)
    assert referee.rank_correlation(order, -order) == pytest.approx(-1)


def test_intervals_resample_images(referee):
    values = np.random.default_rng(0).normal(1.0, 1.0, 200)
    alone = referee.paired_interval(values, range(200))
    half = 1.96 * values.std() / 200**0.5
    assert alone[0] == pytest.approx(values.mean())
    assert alone[2] - alone[1] == pytest.approx(2 * half, rel=0.1)
    # ten copies of one image are no more than one
    repeated = referee.paired_interval(
        np.repeat(values[:20], 10), np.repeat(np.arange(20), 10)
    )
    once = referee.paired_interval(values[:20], range(20))
    assert repeated[2] - repeated[1] == pytest.approx(
        once[2] - once[1], rel=0.05
    )
    assert math.isnan(referee.paired_interval([1.0, 2.0], ['a', 'a'])[1])


def test_other_orders_are_compared_at_equal_bits(referee, known):
    _, _, features, _, moments = known
    upwards = torch.arange(192.0).view(12, 16)
    gate, own = optimised(*known, Settings(steps=0))
    openness = torch.full((1, 1, 14, 18), 0.1)
    openness[..., 3:6, 4:8] = 0.9
    openness = F.avg_pool2d(openness, 3, 1)
    moved = openness.flatten().sort().values.view(1, 1, 12, 16)

    def at(shift):
        return (moved.logit() + shift).sigmoid()

    def nats(openness):
        return gate_information(features[0], openness, *moments[0]).sum()

    shift = brentq(lambda s: (nats(at(s)) - nats(openness)).item(), -9, 9)
    expected = evidence((at(shift) * features[0],)).exp().item()
    other, random = referee.kept_at_equal_bits(
        gate, own, features, [upwards, torch.zeros(12, 16)]
    )
    assert other == pytest.approx(expected, rel=1e-3)
    assert other < random < gate.probability(own)  # no order: at random
