import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmaib.functional import draw_gaussian, gaussian_kl, softplus_std


def test_kl_equals_torch_distributions():
    mean = torch.randn(64, 8, dtype=torch.float64) * 3
    std = torch.rand(64, 8, dtype=torch.float64) * 5 + 1e-4
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    assert torch.allclose(gaussian_kl(mean, std), expected, rtol=0, atol=1e-10)


def test_kl_of_the_prior_is_zero_and_of_anything_else_positive():
    zero = gaussian_kl(torch.zeros(3), torch.ones(3))
    assert zero.abs().max() == 0
    assert (gaussian_kl(torch.randn(99), torch.rand(99) + 0.1) > 0).all()


def test_kl_gradient():
    mean = torch.randn(5, dtype=torch.float64, requires_grad=True)
    std = (torch.rand(5, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(gaussian_kl, (mean, std))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_kl_of_half_precision_is_computed_in_float32(dtype):
    mean = torch.full((4,), 300.0, dtype=dtype)  # 300 ** 2 overflows fp16
    kl = gaussian_kl(mean, torch.ones(4, dtype=dtype))
    assert kl.dtype == torch.float32
    assert torch.allclose(kl, torch.full((4,), 45000.0))


@pytest.mark.parametrize('raw', [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_std_is_positive_and_the_kl_and_its_gradient_finite(raw):
    raw = torch.full((3,), raw, requires_grad=True)
    std = softplus_std(raw)
    assert (std > 0).all()
    kl = gaussian_kl(torch.zeros(3), std).sum()
    (grad,) = torch.autograd.grad(kl, raw)
    assert kl.isfinite()
    assert grad.isfinite().all()


def test_std_at_zero_is_the_papers_start():
    expected = torch.nn.functional.softplus(torch.tensor(-5.0)) + 1e-4
    assert softplus_std(torch.zeros(())) == expected


def test_draws_have_the_distributions_moments():
    mean = torch.tensor([[1.0, -2.0]])
    std = torch.tensor([[0.5, 3.0]])
    draws = draw_gaussian(mean, std, 100_000)
    assert draws.shape == (100_000, 2)
    assert torch.allclose(draws.mean(0), mean[0], atol=0.05)
    assert torch.allclose(draws.std(0), std[0], atol=0.05)


def test_draws_are_folded_draw_by_draw():
    mean = torch.tensor([[0.0], [100.0]])
    draws = draw_gaussian(mean, torch.full((2, 1), 0.01), 3)
    assert draws.round().flatten().tolist() == [0, 100, 0, 100, 0, 100]


def test_draws_are_reparameterised():
    mean = torch.randn(4, 3, requires_grad=True)
    std = torch.rand(4, 3, requires_grad=True)
    generator = torch.Generator().manual_seed(7)
    draw = draw_gaussian(mean, std, 1, generator)
    noise = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(7))[0]
    grads = torch.autograd.grad(draw.sum(), (mean, std))
    assert torch.equal(grads[0], torch.ones(4, 3))
    assert torch.equal(grads[1], noise)


def test_a_generator_of_ones_own_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    draw_gaussian(torch.zeros(2, 2), torch.ones(2, 2), 2, torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_kl_is_the_mean_of_log_density_ratios():
    mean, std = torch.tensor([0.0, 0.7, -2.0]), torch.tensor([1.0, 0.3, 1.5])
    posterior, prior = Normal(mean, std), Normal(0.0, 1.0)
    z = draw_gaussian(mean[None], std[None], num_draws=200_000)
    ratios = posterior.log_prob(z) - prior.log_prob(z)
    error = ratios.std(0) / len(z) ** 0.5
    assert ((ratios.mean(0) - gaussian_kl(mean, std)).abs() <= 5 * error).all()
