import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmaib.functional import gate_information, information_gate

X = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
MEAN = torch.tensor([1.0, -2.0, 0.0]).view(3, 1, 1)
STD = torch.tensor([0.5, 2.0, 1.0]).view(3, 1, 1)


@pytest.mark.parametrize('a', [0.0, 0.1, 0.5, 0.9, 0.999])
def test_the_information_is_the_kl_of_the_two_gaussians(a):
    openness = torch.full((2, 1, 4, 5), a)
    passed = Normal(a * X + (1 - a) * MEAN, (1 - a) * STD)
    expected = kl_divergence(passed, Normal(MEAN.expand_as(X), STD))
    found = gate_information(X, openness, MEAN, STD)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_closed_gate_costs_nothing_and_an_open_one_a_finite_sum():
    closed = gate_information(X, torch.zeros(2, 1, 4, 5), MEAN, STD)
    assert torch.equal(closed, torch.zeros_like(X))
    a = torch.ones(2, 1, 4, 5, requires_grad=True)
    information = gate_information(X, a, MEAN, STD)
    assert information.isfinite().all()
    information.sum().backward()
    assert a.grad.isfinite().all()
    half = gate_information(X.bfloat16(), a.bfloat16(), MEAN, STD)
    assert half.dtype == torch.float32
    assert half.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_ends_of_the_gate_are_exact(dtype):
    x, noise = X.to(dtype), (1e3 * X.flip(0)).to(dtype)
    a = torch.zeros(2, 1, 4, 5)
    assert torch.equal(information_gate(x, a, noise), noise)
    assert torch.equal(information_gate(x * 7, a, noise), noise)
    assert torch.equal(information_gate(x, a + 1, noise), x)


def test_between_them_it_is_the_formula():
    a = torch.rand(2, 1, 4, 5)
    found = information_gate(X, a, MEAN)
    torch.testing.assert_close(found, a * X + (1 - a) * MEAN)
