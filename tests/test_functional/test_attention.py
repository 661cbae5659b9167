import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmaib.functional import conv_to_one, standardized
from mmaib.functional.attention import LOGISTIC_STD


def with_gradients(conv, x, weight, bias):
    """The output, and the gradients of a loss that weighs each position."""
    given = [
        None if t is None else t.detach().requires_grad_()
        for t in (x, weight, bias)
    ]
    out = conv(*given)
    (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    return [out, *(t.grad for t in given if t is not None)]


def conv2d(x, weight, bias):
    return F.conv2d(x, weight, bias, padding=weight.size(-1) // 2)


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (2, 2), (7, 5), (16, 12)])
@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
@pytest.mark.parametrize('with_bias', [True, False])
def test_one_channel_is_conv2ds(size, kernel, with_bias):
    x = torch.randn(3, 6, *size, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = (
            x.contiguous(memory_format=layout),
            torch.randn(1, 6, kernel, kernel).double(),
            torch.randn(1).double() if with_bias else None,
        )
        found = with_gradients(conv_to_one, *given)
        torch.testing.assert_close(found, with_gradients(conv2d, *given))


def test_one_channel_of_no_images():
    found = conv_to_one(torch.ones(0, 6, 7, 5), torch.ones(1, 6, 3, 3))
    assert found.shape == (0, 1, 7, 5)


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize('autocast', [True, False])
def test_one_channel_in_lower_precision_is_as_exact_as_conv2d(dtype, autocast):
    x, weight, bias = (
        torch.randn(shape).to(dtype)
        for shape in ((2, 256, 20, 21), (1, 256, 3, 3), (1,))
    )
    exact = with_gradients(conv2d, x.double(), weight.double(), bias.double())
    if autocast:  # parameters as they are in training
        weight, bias = weight.float(), bias.float()
    amp = torch.autocast('cpu', dtype, autocast and dtype != torch.float32)
    with amp:
        found = with_gradients(conv_to_one, x, weight, bias)
        base = with_gradients(conv2d, x, weight, bias)
    for ours, theirs, value in zip(found, base, exact):
        assert ours.dtype == theirs.dtype
        errors = [(t.double() - value).square().mean() for t in (ours, theirs)]
        assert errors[0] <= 2 * errors[1] + (1e-5 * value.abs().max()) ** 2


def test_equals_the_formula_map_by_map():
    logit = torch.randn(3, 1, 9, 7, dtype=torch.float64) * 14 + 30
    for n, plane in enumerate(logit.numpy()):
        expected = (plane - plane.mean()) / plane.std()
        found = standardized(logit, eps=0.0)[n].numpy()
        np.testing.assert_allclose(found, expected)


def test_the_sigmoid_of_logistic_logits_is_uniform():
    """They are left as they are, whatever their offset and scale were."""
    uniform = torch.rand(1, 1, 200, 200)
    logit = LOGISTIC_STD * standardized(20 * uniform.logit() - 300)
    scores = logit.sigmoid().flatten()
    levels = torch.histc(scores, 10, 0, 1) / len(scores)
    assert (levels - 0.1).abs().max() < 0.01


def test_a_common_mode_and_a_scale_change_nothing():
    logit = torch.randn(2, 1, 8, 8)
    moved = logit * torch.tensor([3.0, 0.5])[:, None, None, None] + 7
    torch.testing.assert_close(
        standardized(moved), standardized(logit),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize('size', [(1, 1), (6, 5)])
def test_equal_logits_are_zero_with_a_finite_gradient(size):
    logit = torch.full((2, 1, *size), 3.0, requires_grad=True)
    found = standardized(logit)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert logit.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_statistics_in_float32(dtype):
    logit = torch.randn(1, 1, 64, 64).to(dtype) * 300
    found = standardized(logit)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, standardized(logit.float()))
