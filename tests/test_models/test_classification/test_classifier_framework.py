"""Table 2 of [AIB] as configuration: every modulation with every encoder,
every KL and both kinds of map, in a classifier."""

import pytest
import torch
from support import COMBINATIONS
from support import classification as cls


@pytest.mark.parametrize(
    ('mode', 'latent', 'quantized'),
    COMBINATIONS,
    ids=lambda value: '-'.join(value) if isinstance(value, tuple) else None,
)
def test_the_full_product_trains_and_evaluates(mode, latent, quantized):
    model = cls.combination(mode, latent, quantized)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        total, _ = model.parse_losses(cls.loss(model, cls.inputs()))
        assert total.isfinite()
        optimizer.zero_grad()
        total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
    for sample in cls.predict(model, cls.inputs()):
        assert sample.pred_score.isfinite().all()


def test_it_learns():
    """The paper's default, -qt: in sixty steps on eight images of noise the
    loss falls to a third."""
    model = cls.combination(*COMBINATIONS[9])
    data = cls.inputs(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(60):
        total, log = model.parse_losses(cls.loss(model, data))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(log['loss_cls'].item())
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
