"""Section 3.3 of [AIB] as configuration: every modulation with every
encoder, every KL and both kinds of map, in a detector."""

import pytest
import torch
from support import COMBINATIONS, latent_config
from support.detection import (
    aib_config,
    build,
    inputs,
    loss,
    predict,
    shrink,
)


def detector(mode, latent, quantized):
    encoder, kl = latent
    cfg = shrink(aib_config('aib-qt' if quantized else 'aib'))
    cfg.model.test_draws = dict(attention=2, latent=2)
    cfg.model.neck.bottleneck.modulation.mode = mode
    head = cfg.model.roi_head.bbox_head
    head.latent = latent_config(encoder, kl)
    if mode == 'concat':
        cfg.model.rpn_head.in_channels = 64
        cfg.model.roi_head.bbox_roi_extractor.out_channels = 64
        head.in_channels = 64
    return build(cfg)


@pytest.mark.parametrize(
    ('mode', 'latent', 'quantized'),
    COMBINATIONS,
    ids=lambda value: '-'.join(value) if isinstance(value, tuple) else None,
)
def test_the_full_product_trains_and_evaluates(mode, latent, quantized):
    model = detector(mode, latent, quantized)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-3)
    for _ in range(2):
        total, _ = model.parse_losses(loss(model, inputs()))
        assert total.isfinite()
        optimizer.zero_grad()
        total.backward()
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
    for sample in predict(model, inputs()):
        assert sample.pred_instances.scores.isfinite().all()
