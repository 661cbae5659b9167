"""Every loss that our layers report reaches the parameters that it is for,
and no others."""

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from support import classification as cls
from support import detection as det
from support import segmentation as seg

DEEPLAB = 'aib-qt_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
MAP = 'neck.bottleneck.attention.'
ANCHORS = ['neck.bottleneck.quantizer.']

# loss -> beginnings of the names of what it trains
DETECTOR = ['backbone.', 'neck.neck.', MAP]
ROIS = [*DETECTOR, 'roi_head.bbox_head.shared_fcs.0.']
CLS, REG = 'roi_head.bbox_head.cls_encoder.', 'roi_head.bbox_head.reg_encoder.'
OF_DETECTOR = {
    'loss_vq': ANCHORS,
    'loss_commit': DETECTOR,
    'loss_kl_cls': [
        *ROIS, 'roi_head.bbox_head.shared_fcs.1.', f'{CLS}std.'
    ],
    'loss_kl_reg': [*ROIS, f'{REG}mean.', f'{REG}std.'],
}  # fmt: skip
# With a critic the KL is that of the draws, which the same layers make.
OF_CRITICS = {
    'loss_critic_cls': [f'{CLS}critic.'],
    'loss_critic_reg': [f'{REG}critic.'],
}
# Of a segmentor's and a classifier's the base model's neck lies behind the
# map.
BEFORE = ['backbone.', MAP]
OF_SEGMENTOR = {
    'loss_vq': ANCHORS,
    'loss_commit': BEFORE,
    'loss_kl_map': BEFORE,
    'loss_kl': [
        *BEFORE, 'neck.neck.', 'decode_head.psp_modules.',
        'decode_head.bottleneck.', 'decode_head.lateral_convs.',
        'decode_head.fpn_convs.', 'decode_head.fpn_bottleneck.',
        'decode_head.encoder.std.',
    ],
}  # fmt: skip
OF_CLASSIFIER = {
    'loss_vq': ANCHORS,
    'loss_commit': BEFORE,
    'loss_kl': [*BEFORE, 'neck.neck.', 'head.fc_mean.', 'head.encoder.std.'],
}


def detector(critic):
    cfg = det.shrink(det.aib_config('aib-qt'))
    # or the zero hides the convolutions of a block from any loss
    cfg.model.backbone.zero_init_residual = False
    cfg.model.roi_head.bbox_roi_extractor.finest_scale = 12
    if critic:
        cfg.model.roi_head.bbox_head.latent.critic = dict()
    return det, cfg


def segmentor(critic):
    cfg = seg.shrink(seg.config(seg.UPERNET / f'aib-qt_{seg.BEIT}'))
    cfg.model.neck.bottleneck.beta = 1e-3
    if critic:
        cfg.model.decode_head.latent.critic = dict()
    return seg, cfg


def deeplab(_):
    return seg, seg.shrink(seg.config(seg.DEEPLAB / DEEPLAB))


def classifier(critic):
    cfg = cls.shrink(cls.config('wrn28-10-aib-qt'))
    if critic:
        cfg.model.head.latent.critic = dict()
    return cls, cfg


def inputs(library):
    """Of a detector with a box for each level of the RoI head."""
    data = library.inputs()
    if library is det:
        sides = torch.tensor([12.0, 32.0, 60.0, 100.0])
        for sample in data['data_samples']:
            corners = torch.full((4, 2), 2.0)
            instances = sample.gt_instances
            sample.gt_instances = type(instances)(
                bboxes=HorizontalBoxes(
                    torch.cat([corners, corners + sides[:, None]], dim=1)
                ),
                labels=torch.arange(4),
            )
    return data


MODELS = {
    'detector': (detector, False, OF_DETECTOR),
    'detector, critics': (detector, True, {**OF_DETECTOR, **OF_CRITICS}),
    'segmentor': (segmentor, False, OF_SEGMENTOR),
    'segmentor, critic': (
        segmentor,
        True,
        {**OF_SEGMENTOR, 'loss_critic': ['decode_head.encoder.critic.']},
    ),
    'deeplab': (
        deeplab,
        False,
        {
            k: OF_SEGMENTOR[k]
            for k in ('loss_vq', 'loss_commit', 'loss_kl_map')
        },
    ),
    'classifier': (classifier, False, OF_CLASSIFIER),
    'classifier, critic': (
        classifier,
        True,
        {**OF_CLASSIFIER, 'loss_critic': ['head.encoder.critic.']},
    ),
}


@pytest.mark.parametrize('name', MODELS)
def test_a_reported_loss_trains_what_it_is_for_and_nothing_else(name):
    make, critic, expected = MODELS[name]
    library, cfg = make(critic)
    torch.manual_seed(0)
    model = library.build(cfg)
    losses = library.loss(model, inputs(library))
    reported = {k: v for k, v in losses.items() if k.startswith('loss_')}
    assert expected.keys() <= reported.keys()
    # the rest are the base model's
    assert reported.keys() - expected.keys() <= {
        'loss_cls', 'loss_bbox', 'loss_rpn_cls', 'loss_rpn_bbox'
    }  # fmt: skip
    parameters = {
        name: p for name, p in model.named_parameters() if p.requires_grad
    }
    for loss, beginnings in expected.items():
        assert losses[loss].requires_grad, loss
        gradients = torch.autograd.grad(
            losses[loss],
            list(parameters.values()),
            retain_graph=True,
            allow_unused=True,
        )
        reached = {
            name
            for name, gradient in zip(parameters, gradients)
            if gradient is not None and gradient.any()
        }
        wanted = {n for n in parameters if n.startswith(tuple(beginnings))}
        assert reached == wanted, loss
