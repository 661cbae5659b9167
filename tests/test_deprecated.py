"""What configs and checkpoints of 0.1 said still counts, and the warning
prints the new spelling."""

import json
from pathlib import Path

import pytest
import torch

from mmaib.sampling.draws import Draws
from mmaib.testing import classification as cls
from mmaib.testing import detection as det
from mmaib.testing import segmentation as seg

# names and shapes of our own weights, by 9cc1697
STATES = json.loads(
    Path(__file__).with_name('state_dicts_0.1.0.json').read_text()
)


def config(host):
    """A small config, and its head."""
    if host == 'detector':
        cfg = det.shrink(det.aib_config('aib-qt-literal'))
        return cfg, cfg.model.roi_head.bbox_head
    if host == 'segmentor':
        cfg = seg.config(seg.UPERNET / f'aib-qt-literal_{seg.BEIT}')
        return seg.shrink(cfg), cfg.model.decode_head
    cfg = cls.config('vgg16-aib-qt')
    cfg.model.neck.bottleneck.modulation.mode = 'bias'
    return cls.shrink(cfg), cfg.model.head


def build(host, cfg):
    hosts = {'detector': det, 'segmentor': seg, 'classifier': cls}
    torch.manual_seed(0)
    return hosts[host].build(cfg), hosts[host]


@pytest.mark.parametrize('name', STATES)
def test_checkpoints_of_before_load(name):
    """Ours have the same names and shapes; with the old fields, too."""
    host, latent = name.split(', ', 1)
    cfg, head = config(host)
    head.pop('latent')
    if latent == "std_source='mean'":
        head.std_source = 'mean'
    else:
        encoder, kl = latent.split(', ')
        head.update(kl=dict(type=kl), encoder=dict(type=f'mmaib.{encoder}'))
    with pytest.warns(FutureWarning, match=r'write latent=dict\('):
        model, _ = build(host, cfg)
    saved = {k: torch.rand(shape) for k, shape in STATES[name].items()}
    loaded = model.load_state_dict(saved, strict=False)
    assert not loaded.unexpected_keys
    ours = ('bottleneck.', 'encoder.', 'critic', 'fc_mean', 'head.hidden')
    assert not [
        key
        for key in loaded.missing_keys
        if any(part in key for part in ours)
        and 'fpn_bottleneck' not in key
        and 'decode_head.bottleneck' not in key
    ]


@pytest.mark.parametrize('host', ['detector', 'segmentor', 'classifier'])
def test_fields_of_before_give_the_same_losses(host):
    new, head = config(host)
    head.latent = dict(
        beta=0.5, std_shift=3.0, critic=dict(dropout=0.1, saturating=False)
    )
    new.model.train_draws = dict(attention=2, latent=3)
    old, head = config(host)
    head.pop('latent')
    kl = dict(type='adversarial', dropout=0.1, saturating=False)
    head.update(beta=0.5, std_shift=3.0, kl=kl, train_draws=3)
    old.model.neck.bottleneck.train_draws = 2
    losses = []
    for cfg in (new, old):
        if cfg is old:
            with pytest.warns(FutureWarning) as warned:
                model, testing = build(host, cfg)
            texts = ' '.join(str(w.message) for w in warned)
            assert 'train_draws=dict(attention=2, latent=3)' in texts
            assert 'latent=dict(beta=0.5, std_shift=3.0, critic=' in texts
            assert old.model.neck.bottleneck.train_draws == 2  # not changed
        else:
            model, testing = build(host, cfg)
        assert model.train_draws == Draws(2, 3)
        torch.manual_seed(1)
        data = testing.inputs()
        losses.append(model.parse_losses(testing.loss(model, data))[1])
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        assert torch.equal(torch.as_tensor(value), losses[1][name]), name


def test_the_kl_of_before_in_closed_form_warns_and_a_mistyped_one_is_told():
    cfg, head = config('classifier')
    head.pop('latent', None)
    head.kl = dict(type='closed_form')
    with pytest.warns(FutureWarning, match=r'latent=dict\(critic=None\)'):
        build('classifier', cfg)
    head.kl = dict(type='adversarail')
    with pytest.raises(ValueError, match=r'kl\.type'):
        build('classifier', cfg)


@pytest.mark.parametrize(
    ('named', 'weighed'),
    [
        ('latent', {'loss_kl'}),
        ('map', {'loss_kl_map'}),
        ('both', {'loss_kl', 'loss_kl_map'}),
    ],
)
def test_the_kl_that_kl_on_did_not_name_weighs_nothing(named, weighed):
    cfg, head = config('segmentor')
    cfg.model.kl_on = named
    cfg.model.neck.bottleneck.beta = 0.1
    head.latent = dict(beta=0.01)
    with pytest.warns(FutureWarning, match=r'decode_head\.latent\.beta'):
        model, _ = build('segmentor', cfg)
    losses = seg.loss(model, seg.inputs())
    kl = {name for name in losses if name.startswith('loss_kl')}
    assert {name for name in kl if losses[name] > 0} == weighed
