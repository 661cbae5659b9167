import math

import numpy as np
import pytest
import torch

from mmaib.functional import standardized_logit


def test_equals_the_formula_map_by_map():
    logit = torch.randn(3, 1, 9, 7, dtype=torch.float64) * 14 + 30
    for n, plane in enumerate(logit.numpy()):
        expected = (plane - plane.mean()) / plane.std()
        found = standardized_logit(logit, eps=0.0)[n].numpy()
        np.testing.assert_allclose(found, math.pi / 3**0.5 * expected)


def test_the_sigmoid_of_logistic_logits_is_uniform():
    """They are left as they are, whatever their offset and scale were."""
    uniform = torch.rand(1, 1, 200, 200)
    logit = standardized_logit(20 * uniform.logit() - 300)
    scores = logit.sigmoid().flatten()
    levels = torch.histc(scores, 10, 0, 1) / len(scores)
    assert (levels - 0.1).abs().max() < 0.01


def test_a_common_mode_and_a_scale_change_nothing():
    logit = torch.randn(2, 1, 8, 8)
    moved = logit * torch.tensor([3.0, 0.5])[:, None, None, None] + 7
    torch.testing.assert_close(
        standardized_logit(moved), standardized_logit(logit),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize('size', [(1, 1), (6, 5)])
def test_equal_logits_are_zero_with_a_finite_gradient(size):
    logit = torch.full((2, 1, *size), 3.0, requires_grad=True)
    found = standardized_logit(logit)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert logit.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_statistics_in_float32(dtype):
    logit = torch.randn(1, 1, 64, 64).to(dtype) * 300
    found = standardized_logit(logit)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, standardized_logit(logit.float()))
