"""The lines of docs/fields.md on mmdet's Mask R-CNN."""

import copy

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from support.detection import build, loss, predict, shrink

CONFIG = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    type='mmaib.AIBFasterRCNN',
    test_draws=dict(attention=2),
    neck=dict(_delete_=True, type='mmaib.AIBNeck',
              neck={{_base_.model.neck}},
              bottleneck=dict(quantizer=dict(num_anchors=20))),
    roi_head=dict(type='mmaib.AIBRoIHead',
                  bbox_head=dict(type='mmaib.AIBShared2FCBBoxHead')))
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    cfg = shrink(Config.fromfile(path))
    roi_head = cfg.model.roi_head
    roi_head.mask_roi_extractor.out_channels = 32
    roi_head.mask_head.update(
        in_channels=32, conv_out_channels=32, num_classes=5
    )
    return build(cfg)


def inputs():
    sizes = [(3, 128, 160), (3, 96, 120)]
    return demo_mm_inputs(2, sizes, num_classes=5, with_mask=True)


def test_every_loss_and_gradient(model):
    total, log = model.parse_losses(loss(model, inputs()))
    assert set(log) > {
        'loss_mask', 'loss_cls', 'loss_bbox', 'loss_kl_cls', 'loss_kl_reg',
        'loss_vq', 'loss_commit',
    }  # fmt: skip
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_masks_of_drawn_boxes(model):
    torch.nn.init.constant_(model.neck.bottleneck.attention.std_conv.bias, 4.0)
    masked, scored = [], []
    model.roi_head.mask_head.register_forward_hook(
        lambda head, args, out: masked.append(len(out))
    )
    model.roi_head.bbox_head.register_forward_hook(
        lambda head, args, out: scored.append(len(out[0]))
    )
    data = inputs()
    first = predict(model, copy.deepcopy(data))
    found = [sample.pred_instances for sample in first]
    for sample, instances in zip(first, found):
        assert len(instances) > 0
        assert instances.masks.shape == (len(instances), *sample.ori_shape)
    # 50 proposals an image, drawn twice; masks once, on the mean's features
    assert scored == [2 * 2 * 50]
    assert masked == [sum(map(len, found))]
    for sample, again in zip(first, predict(model, data)):
        for field in ('bboxes', 'scores', 'masks'):
            assert torch.equal(
                sample.pred_instances[field], again.pred_instances[field]
            )
