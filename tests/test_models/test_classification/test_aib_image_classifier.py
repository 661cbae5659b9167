"""Classifiers, run for real on small networks."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_state_dict
from mmpretrain.structures import DataSample
from support import CLASSIFICATION, CONFIGS
from support import classification as cls
from support.classification import OURS, RESNET, make
from torch import nn

from mmaib.sampling.draws import Draws

MONITORS = {
    'attention_mean',
    'attention_std',
    'attention_contrast',
    'attention_saturated',
}
GATE = {'loss_info', 'info_nats', 'info_bits_per_image', 'gate_open'}
ANCHORS = {'loss_vq', 'loss_commit', 'anchor_perplexity', 'anchors_used'}
LATENT = {'loss_kl', 'kl_nats', 'kl_nats_sum'}
# those of the pets are in test_efficientnet.py
ALL = [
    path
    for path in sorted(CLASSIFICATION.rglob('*.py'))
    if path.parent.name != 'oxford_pet'
] + sorted(CONFIGS.glob('sample/cifar10-*/*.py'))
NOISE_BEFORE = dict(type='mmaib.AdditiveNoiseEncoder', noise_std=0.0)


def with_noise(**noise):
    bottleneck = dict(OURS['neck']['bottleneck'], noise=noise)
    return dict(OURS['neck'], bottleneck=bottleneck)


def small(name='vgg16-aib-qt', **options):
    cfg = cls.shrink(cls.config(name))
    cfg.merge_from_dict(options)
    torch.manual_seed(0)
    return cls.build(cfg)


def wide_stds(model, bias=5.0):
    """Stds of 0.7 where they start at 0.007, so that noise is seen."""
    for name, parameter in model.named_parameters():
        if name.endswith(('std_conv.bias', 'encoder.std.bias')):
            nn.init.constant_(parameter, bias)


def scores(model, data, draws='mean'):
    model.test_draws = draws
    samples = cls.predict(model, copy.deepcopy(data))
    return torch.stack([sample.pred_score for sample in samples])


@pytest.mark.parametrize('path', ALL, ids=lambda path: path.stem)
def test_every_config_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    if 'sample' not in path.parts:
        cls.shrink(cfg)
    torch.manual_seed(0)
    model = cls.build(cfg)
    size = 64 if 'cub' in path.stem else 32
    losses = cls.loss(model, cls.inputs(2, size))
    expected = {'loss'}
    if 'aib' in path.stem or 'gate' in path.stem:
        expected = {'loss_cls'} | MONITORS | LATENT
    if 'gate' in path.stem:
        expected |= GATE
    if '-qt' in path.stem:
        expected |= ANCHORS
    if 'dvib' in path.stem or 'stage2' in path.stem:
        expected = {'loss_cls'} | LATENT
    assert set(losses) == expected
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    stepped = {
        id(p) for group in wrapper.param_groups for p in group['params']
    }
    assert {id(p) for p in model.parameters()} <= stepped
    total.backward()
    for name, parameter in model.named_parameters():
        learns = parameter.requires_grad
        assert (parameter.grad is not None) is learns, name
    (sample,) = cls.predict(model, cls.inputs(1, size))
    assert sample.pred_score.shape == (cfg.model.head.num_classes,)
    torch.testing.assert_close(sample.pred_score.sum(), torch.tensor(1.0))


def test_the_log_tells_the_sum_as_loss():
    """mmpretrain's head calls its own loss plainly `loss`, which MMEngine
    would log in the sum's place."""
    model = small()
    losses = cls.loss(model, cls.inputs())
    total, log = model.parse_losses(losses)
    parts = sum(v.item() for k, v in losses.items() if 'loss' in k)
    assert log['loss'].item() == pytest.approx(parts)
    assert total.item() == pytest.approx(parts)
    assert parts > losses['loss_cls'].item()


def test_a_models_init_cfg_leaves_the_first_forward_the_base_models():
    """As of mmpretrain's Swin and ConvNeXt: it takes every layer in the
    model, ours too."""
    init_cfg = [
        dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0)
    ]
    neck = copy.deepcopy(OURS['neck'])
    neck['bottleneck'] = dict(modulation=dict(init='identity'))
    plain = make(RESNET, init_cfg=init_cfg)
    ours = make(neck=neck, test_draws='mean', init_cfg=init_cfg)
    for layer in (ours.head.encoder.std, ours.neck.bottleneck.attention):
        stds = [p for n, p in layer.named_parameters() if 'mean' not in n]
        assert len(stds) == 2
        assert not any(p.any() for p in stds)
    load_state_dict(ours, plain.state_dict(), strict=False)
    data = cls.inputs()
    assert torch.equal(scores(plain, data), scores(ours, data))
    drawn = scores(ours, data, dict(attention=3, latent=2, seed=0))
    # sigma = 0.007
    assert (drawn - scores(plain, data)).abs().max() < 5e-3


def test_off_means_off_to_the_bit():
    plain, ours = make(RESNET), make(test_draws='mean')
    load_state_dict(ours, plain.state_dict(), strict=False)
    ours.neck.bottleneck.quantizer = None
    switch_off(ours)
    data = cls.inputs()
    assert torch.equal(scores(plain, data), scores(ours, data))
    drawn = scores(ours, data, dict(attention=3, latent=2, seed=0))
    # the floor under a std is 1e-4
    torch.testing.assert_close(drawn, scores(plain, data), atol=1e-3, rtol=0)
    train = cls.loss(plain, copy.deepcopy(data))['loss']
    assert torch.equal(train, cls.loss(ours, copy.deepcopy(data))['loss_cls'])


def switch_off(model):
    """Attention zero, no noise."""
    model.train_draws = Draws()
    attention = model.neck.bottleneck.attention
    nn.init.zeros_(attention.mean_conv.weight)
    nn.init.constant_(attention.mean_conv.bias, -1e4)
    for std in (attention.std_conv, model.head.encoder.std):
        nn.init.constant_(std.bias, -1e4)


def test_a_plain_checkpoint_lacks_our_keys_only():
    plain, ours = make(RESNET), make()
    loaded = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(
        key.startswith(('neck.bottleneck.', 'head.encoder.'))
        for key in loaded.missing_keys
    )
    for name, value in plain.state_dict().items():
        if name.startswith('backbone') or name.startswith('head.fc'):
            assert torch.equal(ours.state_dict()[name], value), name


def test_the_mean_mode_is_deterministic_and_the_drawn_one_repeats():
    model, data = small(), cls.inputs()
    wide_stds(model)
    assert torch.equal(scores(model, data), scores(model, data))
    draws = dict(attention=4, latent=4, seed=0)
    state = torch.get_rng_state()
    first = scores(model, data, draws)
    assert torch.equal(first, scores(model, data, draws))
    assert torch.equal(state, torch.get_rng_state())
    other = scores(model, data, dict(draws, seed=1))
    assert not torch.equal(first, other)
    assert not torch.equal(first, scores(model, data))


def test_logits_are_averaged_over_all_pairs_of_draws():
    """Against a loop over the maps and over the latents of each."""
    model = small().eval()
    wide_stds(model)
    x = torch.randn(3, 3, 32, 32)
    model.test_draws = dict(attention=3, latent=2, seed=5)
    with torch.no_grad():
        (sample, *_) = model.predict(x)
        with Draws(attention=3, seed=5).open():
            maps = model.neck(model.backbone(x))[-1]
        # the latent's noise is drawn behind the map's
        generator = torch.Generator().manual_seed(5)
        torch.randn((3, 3, 1, 16, 16), generator=generator)
        noise = torch.randn((2, 9, 16), generator=generator)
        total = 0
        for i in range(3):
            feature = model.head.pooled((maps[3 * i : 3 * i + 3],))
            mean = model.head.fc_mean(feature)
            std = model.head.encoder.std(feature)
            std = nn.functional.softplus(std - 5) + 1e-4
            for j in range(2):
                z = mean + std * noise[j, 3 * i : 3 * i + 3]
                total = total + model.head.fc(model.head.hidden(z))
    torch.testing.assert_close(
        sample.pred_score, (total / 6).softmax(1)[0], atol=1e-5, rtol=1e-4
    )


def test_several_draws_in_training_are_the_mean_of_single_ones(monkeypatch):
    """Eq. 12 and 18: L_a = 3, L_z = 2 with the noise of six single
    steps, batch norm frozen."""
    data = cls.inputs(2)
    model = small(**{'model.train_draws': dict(attention=3, latent=2)})
    wide_stds(model)
    batch = model.data_preprocessor(data, training=True)
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    grid, latent = (1, 16, 16), (16,)
    map_noise = torch.randn(3, 2, *grid)
    latent_noise = torch.randn(2, 6, *latent)
    noises = []
    monkeypatch.setattr(torch, 'randn', lambda *a, **k: noises.pop(0).clone())
    noises += [map_noise, latent_noise]
    joined = model.loss(**batch)
    singles = []
    model.train_draws = Draws(1, 1)
    for i in range(3):
        for j in range(2):
            rows = slice(2 * i, 2 * i + 2)
            noises += [map_noise[i : i + 1], latent_noise[j : j + 1, rows]]
            singles.append(model.loss(**batch))
    for name in ('loss_cls', 'loss_kl', 'loss_vq', 'loss_commit'):
        mean = torch.stack([losses[name] for losses in singles]).mean()
        torch.testing.assert_close(joined[name], mean, msg=name)


def test_targets_of_mixed_images_are_repeated_with_the_draws():
    model = small(**{'model.train_draws': dict(attention=2)})
    data = cls.inputs(2)
    data['data_samples'] = [
        DataSample().set_gt_score(torch.full((10,), 0.1)) for _ in range(2)
    ]
    losses = cls.loss(model, data)
    assert losses['loss_cls'].isfinite()


@pytest.mark.parametrize('mode', ['additive', 'propagated'])
def test_noise_on_the_features_as_the_paper_draws_it(mode):
    """Lines 8 and 9 of Table 2: all that follows the noise is the encoder,
    and the draws of the latent are draws of that noise."""
    cfg = cls.config('vgg16-aib-qt')
    cfg.model.neck.bottleneck.noise = dict(mode=mode, std=0.5)
    if mode == 'propagated':
        cfg.model.neck.neck.in_channels *= 2
    cfg.model.head.latent = NOISE_BEFORE
    torch.manual_seed(0)
    model = cls.build(cls.shrink(cfg))
    losses = cls.loss(model, cls.inputs())
    assert {'loss_critic', 'loss_kl'} <= losses.keys()
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    model.eval().test_draws = dict(attention=3, latent=2, seed=0)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        drawn = cls.drawn_logits(model, x)
        assert drawn.shape == (6, 4, 10)
        spread = drawn.std(0).mean()
        model.neck.bottleneck.noise.std = 0.0
        assert spread > 2 * cls.drawn_logits(model, x).std(0).mean()
    data = cls.inputs()
    assert torch.equal(scores(model, data), scores(model, data))


def test_attention_alone_works_behind_any_head():
    model = make(head=RESNET['head'])
    assert set(cls.loss(model, cls.inputs())) == (
        {'loss_cls'} | MONITORS | ANCHORS
    )
    wide_stds(model)
    data = cls.inputs()
    drawn = scores(model, data, dict(attention=4, seed=0))
    assert drawn.shape == (4, 10)
    assert not torch.equal(drawn, scores(model, data))


def test_a_mean_trunk_must_take_the_channels():
    cfg = cls.shrink(cls.config('wrn28-10-aib'))
    cfg.model.neck.bottleneck.attention.mean_trunk.in_channels = 7
    with pytest.raises(ValueError, match='must take 20 channels.*=7'):
        cls.build(cfg)


def test_a_mean_trunk_must_keep_the_grid():
    cfg = cls.shrink(cls.config('wrn28-10-aib'))
    cfg.model.neck.bottleneck.attention.mean_trunk.strides = (2,)
    model = cls.build(cfg)
    with pytest.raises(ValueError, match=r'\(16, 16\) into \(8, 8\)'):
        cls.loss(model, cls.inputs())


@pytest.mark.parametrize(
    ('fields', 'match'),
    [
        (dict(test_draws=4), 'test_draws must be'),
        (dict(test_draws=dict()), 'test_draws must be'),
        (dict(test_draws=dict(latents=4)), 'test_draws must be'),
        (dict(test_draws=dict(attention=0)), 'test_draws.attention must be'),
        (
            dict(test_draws=dict(latent=2), head=RESNET['head']),
            'needs an mmaib.AIBClsHead as head, got LinearClsHead',
        ),
        (
            dict(test_draws=dict(attention=2), neck=RESNET['neck']),
            'needs an mmaib.AIBNeck as neck, got GlobalAveragePooling',
        ),
        (dict(head=dict(OURS['head'], decoder='two')), 'decoder must be one'),
        (dict(head=dict(OURS['head'], pool_size=0)), 'pool_size must be'),
        (
            dict(head=dict(OURS['head'], latent_channels=0)),
            'latent_channels must be >= 1',
        ),
        (
            dict(head=dict(OURS['head'], latent=dict(with_mean=True))),
            r"latent sets {'with_mean': True}",
        ),
        (
            dict(neck=with_noise(mode='additive')),
            'needs head.latent=.*got GaussianEncoder',
        ),
        (
            dict(
                neck=with_noise(mode='additive'),
                head=dict(
                    OURS['head'], latent=dict(NOISE_BEFORE, noise_std=1.0)
                ),
            ),
            'noise_std=1.0',
        ),
        (
            dict(
                train_draws=dict(attention=1),
                head=dict(OURS['head'], latent=dict(critic=dict())),
            ),
            "train_draws.latent='mean' leaves the critic of head.encoder",
        ),
    ],
)
def test_bad_fields(fields, match):
    with pytest.raises(ValueError, match=match):
        make(**fields)


def test_noise_of_several_draws_in_training():
    """L_a = 2 maps with L_z = 3 noises each: targets go along."""
    model = make(
        train_draws=dict(attention=2, latent=3),
        neck=with_noise(mode='additive'),
        head=dict(OURS['head'], latent=NOISE_BEFORE),
    )
    logits = []
    model.head.fc.register_forward_hook(lambda _, __, out: logits.append(out))
    losses = cls.loss(model, cls.inputs(4))
    assert losses['loss_cls'].isfinite()
    assert logits[0].shape == (2 * 3 * 4, 10)
    assert len(logits[0].unique(dim=0)) == 24


def test_channels_that_do_not_fit_are_named_before_training():
    cfg = cls.shrink(cls.config('vgg16-aib'))
    cfg.model.head.in_channels = 99
    with pytest.raises(ValueError, match='gives 32 channels, head.in_chan'):
        cls.build(cfg)


def test_training_inside_a_plain_classifier_is_refused():
    model = make(type='ImageClassifier')
    with pytest.raises(RuntimeError, match=r'mmaib\.AIBImageClassifier'):
        cls.loss(model, cls.inputs())


def test_any_classifier_collects():
    model = make(type='mmaib.WithAuxLosses', base='ImageClassifier')
    assert 'loss_kl' in cls.loss(model, cls.inputs())
