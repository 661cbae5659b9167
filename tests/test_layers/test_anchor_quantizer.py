import pytest
import torch

from mmaib.functional import join_levels, split_levels
from mmaib.layers import AnchorQuantizer
from mmaib.losses import collect


def quantize(quantizer, scores):
    with collect() as aux:
        out = quantizer(scores)
    return out, aux.mean()


def test_losses_are_the_weighted_means_of_eq_16_and_17():
    quantizer = AnchorQuantizer(5, vq_weight=0.4, commit_weight=0.1)
    scores = torch.rand(2, 1, 8, 8)
    out, reports = quantize(quantizer, scores)
    distance = (scores[..., None] - quantizer.anchors).abs().min(-1).values
    assert torch.allclose((out - scores).abs(), distance, atol=1e-6)
    mean_square = distance.square().mean()
    assert torch.allclose(reports['loss_vq'], 0.4 * mean_square)
    assert torch.allclose(reports['loss_commit'], 0.1 * mean_square)


def test_anchors_learn_from_vq_alone_and_scores_from_all_but_vq():
    quantizer = AnchorQuantizer(5)
    scores = torch.rand(1, 1, 8, 8, requires_grad=True)
    out, reports = quantize(quantizer, scores)
    inputs = (quantizer.anchors, scores)

    def grads(value):
        return [
            g is not None and bool(g.any())
            for g in torch.autograd.grad(
                value, inputs, retain_graph=True, allow_unused=True
            )
        ]

    assert grads(reports['loss_vq']) == [True, False]
    assert grads(reports['loss_commit']) == [False, True]
    assert grads(out.sum()) == [False, True]


def test_vq_moves_anchors_towards_their_scores():
    quantizer = AnchorQuantizer(3)
    scores = torch.tensor([0.1, 0.6, 0.8])
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        quantize(quantizer, scores)[1]['loss_vq'].backward()
        optimizer.step()
    expected = torch.tensor([0.1, 0.6, 0.8])
    assert torch.allclose(quantizer.anchors, expected, atol=1e-3)


def test_monitors():
    quantizer = AnchorQuantizer(4)  # 0, 1/3, 2/3, 1
    scores = torch.tensor([0.0, 0.01, 1.0, 0.99])
    _, reports = quantize(quantizer, scores)
    assert float(reports['anchors_used']) == 2
    assert float(reports['anchor_perplexity']) == pytest.approx(2)


def test_levels_side_by_side_count_alike():
    """Losses and monitors are means over levels, however large they are."""
    quantizer = AnchorQuantizer(4)
    levels = [torch.rand(2, 1, 8, 6), torch.rand(2, 1, 3, 2).square()]
    with collect() as aux:
        joined = quantizer(join_levels(levels), [(8, 6), (3, 2)])
    alone = [quantize(quantizer, x) for x in levels]
    for found, (expected, _) in zip(
        split_levels(joined, [(8, 6), (3, 2)]), alone, strict=True
    ):
        assert torch.equal(found, expected)
    for name, value in aux.mean().items():
        expected = sum(reports[name] for _, reports in alone) / 2
        torch.testing.assert_close(value, expected)


def test_anchors_are_a_vector_evenly_spaced():
    quantizer = AnchorQuantizer(5, init_range=(-1, 1))
    assert quantizer.anchors.tolist() == [-1, -0.5, 0, 0.5, 1]


def test_float32_under_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        out = AnchorQuantizer(300)(torch.rand(9).bfloat16())
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('num_anchors', 0),
        ('num_anchors', -3),
        ('init_range', (1, 0)),
        ('vq_weight', -0.1),
        ('commit_weight', float('nan')),
    ],
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        AnchorQuantizer(**{'num_anchors': 4, field: value})


def test_a_count_that_is_no_integer():
    with pytest.raises(TypeError, match=r'num_anchors.*integer.*20\.5'):
        AnchorQuantizer(20.5)
