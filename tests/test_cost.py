from functools import partial
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from mmaib.cost import operators
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling import Draws

NORM = dict(logit_norm=True)
ANCHORS = dict(num_anchors=20)
BOTTLENECKS = {
    'aib-literal': dict(),
    'aib': dict(attention=NORM),
    'aib-qt': dict(attention=NORM, quantizer=ANCHORS),
    'gate': dict(modulation=dict(type='mmaib.InformationGate')),
}


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


def pyramid_operators(bottleneck, size):
    """Operators of an AIBNeck after five levels, on a GPU that is not there:
    at the mean, of four maps, of a training step's forward without and with
    monitors."""
    found = []
    with FakeTensorMode():
        with torch.device('cuda'):
            neck = AIBNeck(dict(bottleneck), in_channels=[256] * 5)
            x = [
                torch.empty(2, 256, *(ceil(side / stride) for side in size))
                for stride in (4, 8, 16, 32, 64)
            ]

        def step(monitors):
            with collect(monitors) as aux:
                neck(x)
                aux.mean()

        neck.eval()
        for count in (None, 4):
            with torch.no_grad(), Draws(attention=count).open('cuda'):
                found.append(operators(lambda: neck(x)))
        neck.train()
        with Draws(attention=1).open('cuda'):
            found += [operators(partial(step, on)) for on in (False, True)]
    return found


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
