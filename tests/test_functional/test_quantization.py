from fractions import Fraction

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmaib.functional import nearest_anchor, straight_through


def brute_force(x, anchors):
    """Eq. 15 by a table of exact distances; the lower anchor wins a tie,
    the first of equal anchors."""
    exact = [Fraction(value) for value in anchors.tolist()]
    order = sorted(range(len(exact)), key=exact.__getitem__)
    indices = [
        min(order, key=lambda i: abs(Fraction(score) - exact[i]))
        for score in x.flatten().tolist()
    ]
    indices = torch.tensor(indices, dtype=torch.long).view(x.shape)
    return anchors[indices], indices


CASES = {
    'sorted': torch.linspace(0, 1, 20),
    'unsorted': torch.tensor([0.7, -0.2, 0.31, 1.4, 0.0, 0.5]),
    'duplicates': torch.tensor([0.5, 0.1, 0.5, 0.1, 0.9, 0.5]),
    'single': torch.tensor([0.3]),
    'all equal': torch.full((4,), 0.25),
    'far apart': torch.tensor([-1e20, 1e-20, 3.0, 1e20]),
}


@pytest.mark.parametrize('name', CASES)
def test_equals_brute_force(name):
    anchors = CASES[name]
    x = torch.cat(
        [
            torch.randn(500),
            torch.rand(500),
            anchors,
            (anchors[1:] + anchors[:-1]) / 2,
            torch.tensor([-1e30, 1e30, -7.0, 7.0, 0.0]),
        ]
    )
    values, indices = nearest_anchor(x, anchors)
    expected_values, expected_indices = brute_force(x, anchors)
    assert torch.equal(values, expected_values)
    assert torch.equal(indices, expected_indices)


def test_ties_go_to_the_lower_anchor():
    anchors = torch.tensor([1.0, 0.0, 0.5])
    values, indices = nearest_anchor(torch.tensor([0.25, 0.75]), anchors)
    assert values.tolist() == [0.0, 0.5]
    assert indices.tolist() == [1, 2]


def neighbours(x):
    """Each number and the float32 below and above it."""
    far = torch.full_like(x, float('inf'))
    return torch.cat([torch.nextafter(x, -far), x, torch.nextafter(x, far)])


@pytest.mark.parametrize('scale', [1.0, 1e-30, 1e30])
def test_between_any_two_float32_the_comparison_is_exact(scale):
    """Anchors one float32 apart and of any exponent, scores around each
    midpoint."""
    spread = 10.0 ** torch.randint(-6, 6, (20,))
    anchors = neighbours(torch.randn(20) * spread).sort().values * scale
    middle = anchors[:-1] / 2 + anchors[1:] / 2
    x = neighbours(neighbours(middle)).unique()
    values, indices = nearest_anchor(x, anchors)
    expected_values, expected_indices = brute_force(x, anchors)
    assert torch.equal(values, expected_values)
    assert torch.equal(indices, expected_indices)


class Dtypes(TorchDispatchMode):
    """Dtypes of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves(out)
        self.seen |= {x.dtype for x in leaves if isinstance(x, torch.Tensor)}
        return out


def test_no_float64_which_not_every_device_has():
    x, anchors = torch.rand(9), torch.rand(5, requires_grad=True)
    with Dtypes() as dtypes:
        values, _ = nearest_anchor(x, anchors)
        values.sum().backward()
    assert torch.float32 in dtypes.seen
    assert torch.float64 not in dtypes.seen


def test_midpoints_that_float32_cannot_hold():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    values, _ = nearest_anchor(
        torch.stack([low, high]), torch.stack([high, low])
    )
    assert torch.equal(values, torch.stack([low, high]))


@pytest.mark.parametrize(
    'x',
    [
        torch.empty(0),
        torch.empty(2, 0, 3),
        torch.randn(4, 6).t(),
        torch.randn(3, 8)[:, ::2],
        torch.randn(1, 1, 1).expand(4, 5, 6),
        torch.tensor(0.4),
    ],
    ids=['empty', 'empty 3-D', 'transposed', 'strided', 'expanded', 'scalar'],
)
def test_any_shape_and_layout(x):
    anchors = CASES['unsorted']
    values, indices = nearest_anchor(x, anchors)
    expected_values, expected_indices = brute_force(x, anchors)
    assert values.shape == indices.shape == x.shape
    assert torch.equal(values, expected_values)
    assert torch.equal(indices, expected_indices)


def test_gradient_flows_to_the_anchors_only():
    x = torch.rand(7, requires_grad=True)
    anchors = torch.tensor([0.9, 0.1], requires_grad=True)
    values, indices = nearest_anchor(x, anchors)
    values.sum().backward()
    assert x.grad is None
    assert anchors.grad.tolist() == indices.bincount(minlength=2).tolist()


def test_half_precision_scores_meet_float32_anchors():
    anchors = torch.linspace(0, 1, 257)
    values, _ = nearest_anchor(torch.rand(50).bfloat16(), anchors)
    assert values.dtype == torch.float32


@pytest.mark.parametrize('shape', [(0,), (2, 3), ()])
def test_anchors_that_are_no_vector(shape):
    with pytest.raises(ValueError, match='anchors must be a vector'):
        nearest_anchor(torch.rand(3), torch.rand(shape))


def test_straight_through():
    x = torch.randn(100, requires_grad=True)
    quantized = torch.randn(100, requires_grad=True)
    out = straight_through(x, quantized)
    assert torch.equal(out, quantized)
    weight = torch.randn(100)
    (out * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    assert quantized.grad is None


def test_straight_through_does_not_hide_a_nan():
    x = torch.tensor([0.3, float('nan')])
    values, _ = nearest_anchor(x, torch.linspace(0, 1, 5))
    out = straight_through(x, values)
    assert out.isnan().tolist() == [False, True]
