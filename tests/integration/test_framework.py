"""Section 3.3 and Table 2 of [AIB] as configuration: every modulation with
every encoder, every KL and both kinds of map."""

import pytest
import torch
from support import COMBINATIONS, latent_config
from support import classification as cls
from support import detection as det


def detector(mode, latent, quantized):
    cfg = det.shrink(det.aib_config('aib-qt' if quantized else 'aib'))
    cfg.model.test_draws = dict(attention=2, latent=2)
    cfg.model.neck.bottleneck.modulation.mode = mode
    head = cfg.model.roi_head.bbox_head
    head.latent = latent_config(*latent)
    if mode == 'concat':
        cfg.model.rpn_head.in_channels = 64
        cfg.model.roi_head.bbox_roi_extractor.out_channels = 64
        head.in_channels = 64
    return det.build(cfg)


@pytest.mark.parametrize(
    ('mode', 'latent', 'quantized'),
    COMBINATIONS,
    ids=lambda value: '-'.join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize(
    ('make', 'tools', 'rate'),
    [(cls.combination, cls, 1e-2), (detector, det, 1e-3)],
    ids=['classifier', 'detector'],
)
def test_the_full_product_trains_and_evaluates(
    make, tools, rate, mode, latent, quantized
):
    model = make(mode, latent, quantized)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert tools is det or len(trained) == len([*model.parameters()])
    optimizer = torch.optim.SGD(trained.values(), lr=rate)
    for _ in range(2):
        total, _ = model.parse_losses(tools.loss(model, tools.inputs()))
        assert total.isfinite()
        optimizer.zero_grad()
        total.backward()
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
    for sample in tools.predict(model, tools.inputs()):
        scores = (
            sample.pred_instances.scores if tools is det else sample.pred_score
        )
        assert scores.isfinite().all()


def test_a_classifier_learns():
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
