import pytest
import torch
import torch.nn.functional as F

from mmaib.cost import operators
from tools.benchmark import BOTTLENECKS, pyramid_operators


@pytest.mark.parametrize(
    ('call', 'count'),
    [
        (
            lambda x: x.t().flatten(0).unsqueeze(0).detach(),
            1,
        ),  # a copy of x.t()
        (lambda x: x[1:].view(-1).expand(2, -1), 0),
        (lambda x: torch.empty_like(x), 0),
        (lambda x: x.float(), 0),
        (lambda x: x.double(), 1),
        (lambda x: x.add_(1).mul(2).sum(), 3),
        (lambda x: F.linear(x, x, x[0, :2]), 1),
    ],
)
def test_operators_are_those_that_write(call, count):
    x = torch.rand(2, 2)
    assert operators(lambda: call(x)) == count


# at the mean, of four maps, of a training step without and with monitors
COUNTS = {
    'aib-literal': (17, 34, 34, 96),
    'aib': (23, 40, 40, 102),
    'aib-qt': (41, 58, 78, 214),
    'gate': (32, 74, 147, 220),
}


@pytest.mark.parametrize('name', COUNTS)
def test_operators_of_a_pyramid(name):
    found = pyramid_operators(BOTTLENECKS[name], (800, 1344))
    assert tuple(found) == COUNTS[name]
