import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, init_default_scope
from support import REPOSITORY
from support.detection import (
    aib_config,
    build,
    detector,
    inputs,
    loss,
    noisy_detector,
    plain_config,
    predict,
    shrink,
)

OURS = {
    'aib': {'loss_kl_cls', 'loss_kl_reg'},
    'aib-qt': {'loss_kl_cls', 'loss_kl_reg', 'loss_vq', 'loss_commit'},
}
ENCODERS = (
    'GaussianEncoder',
    'AdditiveNoiseEncoder',
    'PropagatedNoiseEncoder',
)


def total(losses):
    """As MMEngine sums them."""
    flat = []
    for name, value in losses.items():
        if 'loss' in name:
            flat += value if isinstance(value, list) else [value]
    return sum(v.mean() for v in flat)


def same_predictions(first, second):
    for a, b in zip(first, second, strict=True):
        a, b = a.pred_instances, b.pred_instances
        assert len(a) == len(b) > 0
        for field in ('bboxes', 'scores', 'labels'):
            if not torch.equal(a[field], b[field]):
                return False
    return True


def switched_off_pair():
    """A plain detector, and ours with its weights and every part off."""
    plain = build(shrink(plain_config()))
    off = {
        'test_draws': 'mean',
        'neck.bottleneck.quantizer': None,
        'train_draws': 'mean',
        'roi_head.bbox_head.latent.beta': 0.0,
    }
    ours = detector(**off)
    ours.load_state_dict(plain.state_dict(), strict=False)
    attention = ours.neck.bottleneck.attention
    torch.nn.init.zeros_(attention.mean_conv.weight)
    torch.nn.init.constant_(attention.mean_conv.bias, -1e4)
    return plain, ours


def test_off_means_off_to_the_bit():
    plain, ours = switched_off_pair()
    data = inputs()
    torch.manual_seed(1)  # the base library's samplers draw at random
    expected = loss(plain, copy.deepcopy(data))
    torch.manual_seed(1)
    got = loss(ours, copy.deepcopy(data))
    assert set(expected) <= set(got)
    for name, value in expected.items():
        values = value if isinstance(value, list) else [value]
        others = got[name] if isinstance(got[name], list) else [got[name]]
        assert all(map(torch.equal, values, others)), name
    assert float(got['loss_kl_cls']) == float(got['loss_kl_reg']) == 0
    assert same_predictions(
        predict(plain, copy.deepcopy(data)), predict(ours, data)
    )


def test_a_plain_checkpoint_leaves_only_our_keys_missing():
    plain = build(shrink(plain_config()))
    ours = detector()
    result = ours.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    own = ('neck.bottleneck.', 'cls_encoder.std.', 'reg_encoder.std.')
    assert result.missing_keys
    for key in result.missing_keys:
        assert any(part in key for part in own), key
    head = ours.roi_head.bbox_head
    twin = head.reg_encoder.mean
    assert torch.equal(
        twin.weight, plain.roi_head.bbox_head.shared_fcs[1].weight
    )
    assert torch.equal(head.shared_fcs[1].weight, twin.weight)


@pytest.mark.parametrize('name', OURS)
def test_every_trainable_parameter_gets_a_gradient(name):
    model = detector(name)
    losses = loss(model, inputs())
    assert set(losses) >= OURS[name]
    total(losses).backward()
    for parameter, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, parameter
            assert value.grad.isfinite().all(), parameter
    own = [
        value.grad.any()
        for parameter, value in model.named_parameters()
        if 'bottleneck' in parameter or 'encoder' in parameter
    ]
    assert len(own) >= 10
    assert all(own)


@pytest.mark.parametrize('kind', ENCODERS)
def test_every_encoder_with_an_adversarial_kl(kind):
    model = detector(
        **{
            'roi_head.bbox_head.latent': dict(
                type=f'mmaib.{kind}', critic=dict(dropout=0.1)
            ),
        }
    )
    losses = loss(model, inputs())
    assert set(losses) >= {'loss_critic_cls', 'loss_critic_reg', 'loss_kl_cls'}
    assert losses['loss_kl_cls'] < 0
    total(losses).backward()
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
        if 'critic' in name or 'propagate' in name:
            assert value.grad.any(), name
    assert len(predict(model, inputs())) == 2


def test_several_draws_in_training():
    model = detector(
        **{
            'train_draws': dict(attention=3, latent=2),
        }
    )
    rows = []
    model.roi_head.bbox_head.fc_cls.register_forward_hook(
        lambda layer, args, out: rows.append(len(out))
    )
    losses = loss(model, inputs())
    # 32 sampled boxes, two images, L_a = 3 maps, L_z = 2 latents
    assert rows == [32 * 2 * 3 * 2]
    total(losses).backward()
    for name, value in model.named_parameters():
        assert not value.requires_grad or value.grad is not None, name
    assert total(loss(model, inputs(num_boxes=0))).isfinite()


def test_consecutive_steps_deepcopy_and_ema_keep_the_losses_right():
    model = detector('aib-qt', **{'test_draws': 'mean'})
    ema = ExponentialMovingAverage(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    keys = None
    for step in range(2):
        torch.manual_seed(step)
        data = inputs()
        torch.manual_seed(9)
        losses = loss(model, copy.deepcopy(data))
        keys = keys or set(losses)
        assert set(losses) == keys
        optimizer.zero_grad()
        total(losses).backward()
        # The same step of a copy gives the same losses: nothing is kept.
        torch.manual_seed(9)
        again = loss(copy.deepcopy(model), copy.deepcopy(data))
        for name in OURS['aib-qt']:
            assert torch.equal(again[name], losses[name])
        optimizer.step()
        ema.update_parameters(model)
    assert set(loss(ema.module, inputs())) == keys


def test_mean_mode_repeats_to_the_bit():
    model, data = detector(**{'test_draws': 'mean'}), inputs()
    first = predict(model, copy.deepcopy(data))
    assert same_predictions(first, predict(model, data))


def test_monte_carlo_repeats_and_leaves_the_global_generator_alone():
    model, data = noisy_detector(4), inputs()
    before = torch.get_rng_state()
    first = predict(model, copy.deepcopy(data))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert same_predictions(first, predict(model, copy.deepcopy(data)))
    model.test_draws = dict(attention=4, latent=2, seed=1)
    assert not same_predictions(first, predict(model, data))


def test_the_rpn_sees_the_features_of_the_mean_of_the_drawn_maps():
    model = noisy_detector(3).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        with model.test_draws.open():
            features = model.extract_feat(images)
        x = model.neck.neck(model.backbone(images))
        with model.test_draws.open():
            maps = [model.neck.bottleneck.attend([level])[0] for level in x]
    for got, level, drawn in zip(features, x, maps):
        mean_map = (drawn[:2] + drawn[2:4] + drawn[4:]) / 3
        assert torch.allclose(got, level + level * mean_map, atol=1e-5)


@pytest.mark.parametrize('draws', ['mean', {'attention': 2, 'latent': 1}])
@pytest.mark.parametrize(
    'sizes',
    [((97, 131),), ((64, 64), (130, 70), (33, 200))],
    ids=['odd, batch of one', 'different sizes'],
)
def test_sizes(draws, sizes):
    model = detector(**{'test_draws': draws})
    assert total(loss(model, inputs(sizes))).isfinite()
    for sample in predict(model, inputs(sizes)):
        assert len(sample.pred_instances) > 0


def test_no_ground_truth():
    model = detector()
    losses = loss(model, inputs(num_boxes=0))
    total(losses).backward()
    assert total(losses).isfinite()
    missing = [
        name
        for name, value in model.named_parameters()
        if value.requires_grad and value.grad is None
    ]
    assert missing == []


@pytest.mark.parametrize('raw', [-1e4, 1e4])
def test_extreme_statistics_stay_finite(raw):
    model = detector()
    head = model.roi_head.bbox_head
    for std in (
        model.neck.bottleneck.attention.std_conv,
        head.cls_encoder.std,
        head.reg_encoder.std,
    ):
        torch.nn.init.constant_(std.bias, raw)
    losses = loss(model, inputs())
    for name in OURS['aib-qt']:
        assert losses[name].isfinite(), name
    total(losses).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ('option', 'value', 'match'),
    [
        ('test_draws', 4, 'test_draws must be'),
        ('test_draws', {}, 'test_draws must be'),
        ('train_draws', {'attention': 1, 'seed': 0}, 'train_draws must be'),
        ('train_draws', {'latent': 0}, r'train_draws\.latent.*>= 1, got 0'),
        ('test_draws', {'attention': 0}, r'test_draws\.attention.*>= 1'),
        ('test_draws', {'attention': 2, 'latent': 0}, r'test_draws\.latent'),
        ('test_draws', {'attention': 2, 'sed': 1}, 'test_draws must be'),
        ('roi_head.bbox_head.latent.beta', -1.0, 'beta must be >= 0'),
        ('neck.bottleneck.modulation.mode', 'plus', 'mode must be one of'),
        ('neck.bottleneck.quantizer.num_anchors', 0, 'num_anchors must be'),
        (
            'roi_head.bbox_head.latent.in_channels',
            4,
            r"latent sets {'in_channels': 4}",
        ),
    ],
)
def test_bad_fields(option, value, match):
    with pytest.raises(ValueError, match=match):
        detector(**{option: value})


def test_concat_needs_heads_of_twice_the_channels():
    with pytest.raises(ValueError, match='64 channels.*in_channels is 32'):
        detector(**{'neck.bottleneck.modulation.mode': 'concat'})
    model = detector(
        **{
            'neck.bottleneck.modulation.mode': 'concat',
            'rpn_head.in_channels': 64,
            'roi_head.bbox_roi_extractor.out_channels': 64,
            'roi_head.bbox_head.in_channels': 64,
        }
    )
    total(loss(model, inputs())).backward()
    assert len(predict(model, inputs())) == 2


def test_draws_from_parts_that_have_none():
    cfg = shrink(aib_config())
    cfg.model.roi_head.type = 'StandardRoIHead'
    with pytest.raises(ValueError, match='AIBRoIHead as roi_head'):
        build(cfg)


def test_a_detector_that_does_not_collect_is_refused():
    cfg = shrink(aib_config())
    cfg.model.type = 'FasterRCNN'
    cfg.model.pop('test_draws')
    model = build(cfg)
    with pytest.raises(RuntimeError, match='WithAuxLosses'):
        loss(model, inputs())
    predict(model, inputs())


def test_the_samples_roialign_has_the_bits_of_mmcvs():
    cfg = Config.fromfile(
        REPOSITORY / 'configs/_base_/models/faster-rcnn_lite0_fpn.py'
    ).model.roi_head.bbox_roi_extractor
    torch.manual_seed(0)
    corners = torch.rand(64, 2, 2).mul(300).sub(20).sort(1).values.flatten(1)
    rois = torch.cat([torch.arange(64)[:, None] % 2, corners], 1)
    init_default_scope('mmdet')
    found = []
    for use_torchvision in (True, False):
        cfg.roi_layer.use_torchvision = use_torchvision
        extractor = MODELS.build(cfg)
        torch.manual_seed(1)
        levels = [
            torch.randn(
                2, cfg.out_channels, 256 // stride, 192 // stride
            ).requires_grad_()
            for stride in cfg.featmap_strides
        ]
        out = extractor(levels, rois)
        found.append([out, *torch.autograd.grad(out.square().sum(), levels)])
    assert all(map(torch.equal, *found))
