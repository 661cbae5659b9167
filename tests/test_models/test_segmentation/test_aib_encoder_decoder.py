import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_state_dict
from support import CONFIGS
from support import segmentation as seg
from support.segmentation import AIB_QT, make
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.sampling.draws import Draws

PLAIN = seg.UPERNET / seg.BEIT
DEEPLAB_QT = (
    seg.DEEPLAB / 'aib-qt_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
)
ALL = sorted(
    [
        *(CONFIGS / 'segmentation').rglob('*.py'),
        *(CONFIGS / 'sample').rglob('*upernet*.py'),
    ]
)
BASE_LOSSES = {'decode.loss_ce', 'decode.acc_seg'}
AUX_LOSSES = {'aux.loss_ce', 'aux.acc_seg'}
MAP = {
    'attention_mean',
    'attention_std',
    'attention_contrast',
    'attention_saturated',
}
LATENT = {'loss_kl', 'kl_nats', 'kl_nats_sum'}
MAP_KL = {'loss_kl_map', 'kl_map_nats'}
SE_LOSS = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2)
GATE = {'loss_info', 'info_nats', 'info_bits_per_image', 'gate_open'}
ANCHORS = {'loss_vq', 'loss_commit', 'anchor_perplexity', 'anchors_used'}


def switch_off(segmentor):
    """No map, no noise, no KL."""
    bottleneck = segmentor.neck.bottleneck
    bottleneck.quantizer = None
    segmentor.train_draws = Draws()
    bottleneck.attention.register_forward_hook(
        lambda _, __, maps: maps.changed(torch.zeros_like, lambda x: x)
    )
    segmentor.decode_head.encoder.beta = 0.0


def noisy(segmentor):
    """Draws that differ enough to be told apart."""
    torch.nn.init.constant_(
        segmentor.neck.bottleneck.attention.std_conv.bias, 4.0
    )
    torch.nn.init.constant_(segmentor.decode_head.encoder.std.bias, 4.0)


@pytest.mark.parametrize('path', ALL, ids=lambda path: path.stem)
def test_every_config_trains_and_predicts(path):
    segmentor = make(path)
    losses = seg.loss(segmentor, seg.inputs())
    expected = BASE_LOSSES | (
        AUX_LOSSES if segmentor.with_auxiliary_head else set()
    )
    if path.stem.startswith('aib'):
        expected |= MAP | (MAP_KL if 'deeplab' in path.stem else LATENT)
    if path.stem.startswith(('gate', 'readout')):
        expected |= MAP | GATE
    if path.stem.startswith('latent-stage2'):
        expected |= LATENT
    if '-qt' in path.stem:
        expected |= ANCHORS
    assert set(losses) == expected
    total, _ = segmentor.parse_losses(losses)
    assert total.isfinite()
    optimizer = build_optim_wrapper(
        segmentor, seg.config(path).optim_wrapper
    ).optimizer
    stepped = [p for group in optimizer.param_groups for p in group['params']]
    trainable = {id(p) for p in segmentor.parameters() if p.requires_grad}
    assert trainable <= {id(p) for p in stepped}
    total.backward()
    for name, parameter in segmentor.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # A gate that starts at zero hides the map from the loss.
            gated = (
                'bottleneck.attention' in name
                and 'aib' in path.stem
                and 'lite0' in path.stem
            )
            assert gated or parameter.grad.any(), name
    (sample,) = seg.predict(segmentor, seg.inputs(((64, 100),)))
    assert sample.seg_logits.data.shape == (5, 64, 100)
    assert sample.seg_logits.data.isfinite().all()
    assert sample.pred_sem_seg.data.shape == (1, 64, 100)


@pytest.mark.parametrize('std_source', ['feature', 'mean'])
def test_off_means_off_to_the_bit(std_source):
    plain = make(PLAIN)
    ours = make(
        test_draws='mean', decode_head=dict(latent=dict(std_source=std_source))
    )
    load_state_dict(ours, plain.state_dict(), strict=False)
    switch_off(ours)
    data = seg.inputs()
    for a, b in zip(
        seg.predict(plain, copy.deepcopy(data)),
        seg.predict(ours, copy.deepcopy(data)),
    ):
        assert torch.equal(a.seg_logits.data, b.seg_logits.data)
    losses = []
    for segmentor in (plain, ours):
        torch.manual_seed(5)  # dropout
        losses.append(seg.loss(segmentor, copy.deepcopy(data)))
    for name, value in losses[0].items():
        assert torch.equal(value, losses[1][name]), name


def test_off_means_off_with_draws():
    """Without a std, draws of the map and of the latent are their means."""
    plain, ours = make(PLAIN), make()
    load_state_dict(ours, plain.state_dict(), strict=False)
    switch_off(ours)
    for std in (
        ours.neck.bottleneck.attention.std_conv,
        ours.decode_head.encoder.std,
    ):
        torch.nn.init.zeros_(std.weight)
        torch.nn.init.constant_(std.bias, -1e4)
    data = seg.inputs()
    for a, b in zip(
        seg.predict(plain, copy.deepcopy(data)),
        seg.predict(ours, copy.deepcopy(data)),
    ):
        # the floor of 1e-4 on both stds is what is left
        assert torch.allclose(a.seg_logits.data, b.seg_logits.data, atol=1e-3)


def test_a_plain_checkpoint_lacks_our_keys_only():
    plain, ours = make(PLAIN), make()
    result = ours.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys
    for key in result.missing_keys:
        assert key.startswith(('neck.bottleneck.', 'decode_head.encoder.'))
    for name, value in plain.state_dict().items():
        if name.startswith('neck.'):
            name = f'neck.{name}'
        assert torch.equal(ours.state_dict()[name], value), name


def test_our_own_checkpoint_loads_strictly():
    ours, other = make(), make()
    other.load_state_dict(ours.state_dict(), strict=True)
    for a, b in zip(ours.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_the_mean_mode_is_deterministic_and_the_drawn_one_repeats():
    drawn, mean = make(), make(test_draws='mean')
    mean.load_state_dict(drawn.state_dict())
    for segmentor in (drawn, mean):
        noisy(segmentor)
    data = seg.inputs()
    state = torch.get_rng_state()
    outputs = {
        name: [
            seg.predict(segmentor, copy.deepcopy(data))[0].seg_logits.data
            for _ in range(2)
        ]
        for name, segmentor in {'drawn': drawn, 'mean': mean}.items()
    }
    assert torch.equal(torch.get_rng_state(), state)
    for first, second in outputs.values():
        assert torch.equal(first, second)
    assert not torch.allclose(outputs['drawn'][0], outputs['mean'][0])


def test_draws_in_one_batch_equal_a_loop():
    ours = make(test_draws=dict(attention=3, latent=2, seed=7))
    noisy(ours)
    ours.eval()
    images = torch.randn(2, 3, *seg.SIZE)
    metas = [dict(img_shape=seg.SIZE, pad_shape=seg.SIZE)] * 2
    with torch.no_grad():
        batched = ours.encode_decode(images, metas)
        x = ours.backbone(images)
        with Draws(attention=3, seed=7).open():
            drawn = ours.neck(x)
        features = [
            [level.unflatten(0, (3, 2))[draw] for level in drawn]
            for draw in range(3)
        ]
        # The latent's noise is drawn behind the map's, for all maps at once:
        # (L_z, L_a N, ...)
        generator = torch.Generator().manual_seed(7)
        side = seg.SIZE[0] // 16
        torch.randn(3, 2, 1, side, side, generator=generator)
        side = seg.SIZE[0] // 4
        noise = torch.randn(2, 6, 16, side, side, generator=generator)
        head, logits = ours.decode_head, []
        for l_z in range(2):
            for l_a, levels in enumerate(features):
                pyramid = head._forward_feature(levels)
                mean = head.fpn_bottleneck.apply_now(pyramid)
                raw = head.encoder.std(pyramid)
                std = torch.nn.functional.softplus(raw - 5) + 1e-4
                z = mean + std * noise[l_z].unflatten(0, (3, 2))[l_a]
                logits.append(head.cls_seg(z))
        loop = head.predict_by_feat(torch.stack(logits).mean(0), metas)
    assert torch.allclose(batched, loop, atol=1e-5)
    assert batched.std() > 0


def test_drawn_losses_are_the_mean_over_the_draws(monkeypatch):
    """Eq. 12 and 18 with L_a = 3 and L_z = 2, against one draw at a time."""
    segmentor = make(
        train_draws=dict(attention=3, latent=2),
        decode_head=dict(dropout_ratio=0.0),
        auxiliary_head=dict(dropout_ratio=0.0),
    )
    noisy(segmentor)
    data, normal, noise = seg.inputs(), torch.randn, []

    def losses(randn):
        monkeypatch.setattr(torch, 'randn', randn)
        segmentor.train()
        for module in segmentor.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        batch = segmentor.data_preprocessor(data, training=True)
        return segmentor(**batch, mode='loss')

    def keep(*args, **kwargs):
        noise.append(normal(*args, **kwargs))
        return noise[-1]

    folded = losses(keep)
    of_maps, of_latents = noise
    assert of_maps.shape[:2] == (3, 2)
    assert of_latents.shape[:2] == (2, 6)
    segmentor.train_draws = Draws(1, 1)
    one_by_one = []
    for l_a in range(3):
        for l_z in range(2):
            drawn = iter(
                [
                    of_maps[l_a : l_a + 1],
                    of_latents[l_z : l_z + 1, 2 * l_a : 2 * l_a + 2],
                ]
            )
            one_by_one.append(losses(lambda *a, drawn=drawn, **k: next(drawn)))
    assert one_by_one[0]['decode.loss_ce'] != one_by_one[1]['decode.loss_ce']
    for name, value in folded.items():
        if 'loss' in name:
            mean = torch.stack([single[name] for single in one_by_one]).mean()
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('draws', ['mean', dict(attention=2, latent=1)])
def test_slide_and_whole_agree_on_an_image_of_one_window(draws):
    slide = make(test_draws=draws)
    noisy(slide)
    whole = copy.deepcopy(slide)
    whole.test_cfg = type(slide.test_cfg)(mode='whole')
    data = seg.inputs()
    for a, b in zip(
        seg.predict(slide, copy.deepcopy(data)),
        seg.predict(whole, copy.deepcopy(data)),
    ):
        assert torch.allclose(a.seg_logits.data, b.seg_logits.data)


def test_each_window_is_evaluated_by_itself():
    """Sliding is the mean over windows of their own predictions."""
    ours = make()
    noisy(ours)
    ours.eval()
    image = torch.randn(1, 3, 64, 106)
    metas = [dict(img_shape=(64, 106), ori_shape=(64, 106))]
    with torch.no_grad():
        slid = ours.inference(image, copy.deepcopy(metas))
        total, count = torch.zeros(1, 5, 64, 106), torch.zeros(106)
        for left in (0, 42):
            window = image[..., left : left + 64]
            meta = [dict(img_shape=window.shape[2:])]
            total[..., left : left + 64] += ours.encode_decode(window, meta)
            count[left : left + 64] += 1
    assert torch.allclose(slid, total / count, atol=1e-6)


# What the KL is on
def test_both_kls():
    ours = make(neck=dict(bottleneck=dict(beta=0.1)))
    losses = seg.loss(ours, seg.inputs())
    for name, monitor, beta in (
        ('loss_kl', 'kl_nats', 0.01),
        ('loss_kl_map', 'kl_map_nats', 0.1),
    ):
        assert torch.allclose(losses[name], beta * losses[monitor])


@pytest.mark.parametrize(
    ('path', 'model', 'match'),
    [
        (
            DEEPLAB_QT,
            dict(test_draws=dict(attention=2, latent=3)),
            'test_draws.latent=3 needs.*DepthwiseSeparableASPPHead',
        ),
        (AIB_QT, dict(test_draws=2), "test_draws must be 'mean' or"),
        (
            AIB_QT,
            dict(test_draws=dict(attention=0)),
            r'test_draws\.attention.*>= 1, got 0',
        ),
        (
            AIB_QT,
            dict(decode_head=dict(latent=dict(std_source='x'))),
            'std_source must',
        ),
        (
            AIB_QT,
            dict(decode_head=dict(latent=dict(beta=-1.0))),
            'beta must be >= 0.0',
        ),
    ],
)
def test_bad_fields(path, model, match):
    with pytest.raises(ValueError, match=match):
        make(path, **model)


def test_draws_need_our_neck():
    cfg = seg.shrink(seg.config(AIB_QT))
    cfg.model.neck = cfg.model.neck.neck
    with pytest.raises(ValueError, match='needs an mmaib.AIBNeck'):
        seg.build(cfg)


@pytest.mark.parametrize(
    'head',
    [
        dict(type='EncHead', num_codes=4, loss_se_decode=SE_LOSS),
        dict(type='DAHead', pam_channels=4),
    ],
    ids=lambda head: head['type'],
)
def test_heads_whose_forward_gives_more_than_logits(head):
    """Draws reach logits by the head's own predict()."""
    cfg = seg.shrink(seg.config(DEEPLAB_QT))
    cfg.model.decode_head = dict(
        head,
        in_channels=[16, 32, 64] if head['type'] == 'EncHead' else 64,
        in_index=(1, 2, 3) if head['type'] == 'EncHead' else 3,
        channels=16,
        num_classes=5,
        norm_cfg=dict(type='BN'),
    )
    ours = seg.build(cfg)
    torch.nn.init.constant_(ours.neck.bottleneck.attention.std_conv.bias, 4.0)
    assert ours.parse_losses(seg.loss(ours, seg.inputs()))[0].isfinite()
    ours.eval()
    image = torch.randn(1, 3, *seg.SIZE)
    metas = [dict(img_shape=seg.SIZE, pad_shape=seg.SIZE)]
    num_draws = ours.test_draws.attention
    with torch.no_grad():
        averaged = ours.encode_decode(image, metas)
        with ours.test_draws.open():
            drawn = ours.neck(ours.backbone(image))
        logits = [
            ours.decode_head.predict(
                [level[draw : draw + 1] for level in drawn], metas, {}
            )
            for draw in range(num_draws)
        ]
    assert torch.allclose(averaged, sum(logits) / num_draws, atol=1e-5)
    assert not torch.allclose(logits[0], logits[1])


# Hard data
@pytest.mark.parametrize('label', [255, 0])
def test_void_everywhere_and_one_class_everywhere(label):
    ours = make()
    losses = seg.loss(ours, seg.inputs(label=label))
    total, _ = ours.parse_losses(losses)
    total.backward()
    for name, value in losses.items():
        assert value.isfinite().all(), name
    for name, parameter in ours.named_parameters():
        assert parameter.grad.isfinite().all(), name
    if label == 255:
        assert losses['decode.loss_ce'] == 0
        assert losses['loss_kl'] > 0


def test_a_single_class():
    """mmseg trains a softmax over one class, whose loss is always zero."""
    head = dict(num_classes=1)
    with pytest.raises(ValueError, match='num_classes=1.*use_sigmoid=True'):
        make(decode_head=head)
    head['loss_decode'] = dict(use_sigmoid=True)
    ours = make(decode_head=head, auxiliary_head=head)
    losses = seg.loss(ours, seg.inputs(num_classes=2))
    assert losses['decode.loss_ce'] > 0
    (sample, _) = seg.predict(ours, seg.inputs(num_classes=2))
    assert set(sample.pred_sem_seg.data.unique().tolist()) <= {0, 1}


def test_void_only_with_the_mean_over_labelled_pixels():
    loss = dict(avg_non_ignore=True)
    ours = make(
        decode_head=dict(loss_decode=loss),
        auxiliary_head=dict(loss_decode=loss),
    )
    losses = seg.loss(ours, seg.inputs(label=255))
    assert losses['decode.loss_ce'] == 0


@pytest.mark.parametrize('size', [(40, 64), (64, 30), (17, 19)])
def test_an_image_smaller_than_the_window(size):
    ours = make()
    losses = seg.loss(ours, seg.inputs((size, (64, 64))))
    assert ours.parse_losses(losses)[0].isfinite()
    (sample,) = seg.predict(ours, seg.inputs((size,)))
    assert sample.pred_sem_seg.data.shape == (1, *size)


def test_align_corners():
    ours = make(
        decode_head=dict(align_corners=True),
        auxiliary_head=dict(align_corners=True),
    )
    assert ours.parse_losses(seg.loss(ours, seg.inputs()))[0].isfinite()
    (sample,) = seg.predict(ours, seg.inputs(((64, 90),)))
    assert sample.pred_sem_seg.data.shape == (1, 64, 90)


def test_a_single_image_in_training_behind_group_norm():
    norm = dict(_delete_=True, type='GN', num_groups=4, requires_grad=True)
    cfg = seg.shrink(seg.config(AIB_QT))
    cfg.merge_from_dict(
        {
            'model.decode_head.norm_cfg': norm,
            'model.auxiliary_head.norm_cfg': norm,
        }
    )
    ours = seg.build(cfg)
    losses = seg.loss(ours, seg.inputs(((64, 64),)))
    assert ours.parse_losses(losses)[0].isfinite()


def test_copies_and_consecutive_steps_keep_the_losses_right():
    ours = make()
    torch.manual_seed(1)
    first = seg.loss(ours, seg.inputs())['loss_kl']
    twin = copy.deepcopy(ours)
    torch.manual_seed(1)
    assert torch.equal(seg.loss(twin, seg.inputs())['loss_kl'], first)
