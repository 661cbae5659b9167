"""`AIBNeck` and `mmaib.WithAuxLosses` in detectors that we have no class
for."""

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from support.detection import build, inputs, loss, predict

CONFIGS = {
    'RetinaNet': 'retinanet/retinanet_r18_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'CascadeRCNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'MaskRCNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
}


def config(name):
    """mmdet's config on ResNet-18, with five lines of ours."""
    model = get_config(f'mmdet::{CONFIGS[name]}').model
    model.backbone.update(depth=18, init_cfg=None)
    model.neck.in_channels = [64, 128, 256, 512]
    if name == 'FCOS':
        model.backbone.style = 'pytorch'
    model.type = 'mmaib.WithAuxLosses'
    model.base = name
    model.neck = dict(
        type='mmaib.AIBNeck',
        neck=model.neck,
        bottleneck=dict(quantizer=dict(num_anchors=20)),
    )
    return ConfigDict(model=model)


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts(name):
    model = build(config(name))
    assert type(model).__name__ == f'WithAuxLosses{name}'
    data = inputs(((96, 96), (96, 96)))
    if name == 'MaskRCNN':
        data = demo_mm_inputs(2, [[3, 96, 96]] * 2, with_mask=True)
    value, log = model.parse_losses(loss(model, data))
    assert {'loss_vq', 'loss_commit', 'anchors_used'} <= set(log)
    value.backward()
    bottleneck = model.neck.bottleneck
    assert all(p.grad.any() for p in bottleneck.parameters())
    assert len(predict(model, inputs(((96, 96),)))) == 1


def test_an_unknown_base():
    with pytest.raises(KeyError, match="base='RetinaNot'"):
        build(
            ConfigDict(
                model=dict(type='mmaib.WithAuxLosses', base='RetinaNot')
            )
        )


def test_losses_of_the_neck_enter_the_total():
    model = build(config('RetinaNet'))
    losses = loss(model, inputs(((96, 96),)))
    value, log = model.parse_losses(losses)
    parts = [v for k, v in log.items() if 'loss' in k and k != 'loss']
    assert torch.allclose(value, sum(parts))


def test_the_betas_of_a_cascade_weigh_the_kl_of_its_stages():
    """The mean over stages; `stage_loss_weights` do not reach it."""
    cfg = config('CascadeRCNN')
    for head in cfg.model.roi_head.bbox_head:
        head.update(type='mmaib.AIBShared2FCBBoxHead', fc_out_channels=32)
    model = build(cfg)
    data = inputs(((96, 96),))
    stages = model.roi_head.bbox_head

    def kl(*betas):
        for head, beta in zip(stages, betas):
            head.cls_encoder.beta = head.reg_encoder.beta = beta
        torch.manual_seed(1)
        losses = loss(model, data)
        return losses['loss_kl_cls'].item(), losses['kl_nats'].item()

    first, second, third = kl(3, 0, 0), kl(0, 3, 0), kl(0, 0, 3)
    total, nats = kl(3, 1.5, 0.75)
    expected = first[0] + 0.5 * second[0] + 0.25 * third[0]
    assert total == pytest.approx(expected, rel=1e-5)
    model.roi_head.stage_loss_weights = [1, 7, 7]
    assert kl(3, 1.5, 0.75) == (total, nats)
