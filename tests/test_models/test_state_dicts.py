"""Checkpoints of earlier commits load: names and shapes stay."""

import json
from pathlib import Path

import pytest
import torch
from support import classification as cls
from support import detection as det
from support import latent_config
from support import segmentation as seg

# names and shapes of mmaib's own weights, by 9cc1697
STATES = json.loads(
    Path(__file__).with_name('state_dicts_0.1.0.json').read_text()
)


def build(kind, latent):
    """A small model with that latent."""
    if kind == 'detector':
        cfg = det.shrink(det.aib_config('aib-qt-literal'))
        cfg.model.roi_head.bbox_head.latent = latent
        return det.build(cfg)
    if kind == 'segmentor':
        cfg = seg.config(seg.UPERNET / f'aib-qt-literal_{seg.BEIT}')
        cfg.model.decode_head.latent = latent
        return seg.build(seg.shrink(cfg))
    cfg = cls.config('vgg16-aib-qt')
    cfg.model.neck.bottleneck.modulation.mode = 'bias'
    cfg.model.head.latent = latent
    return cls.build(cls.shrink(cfg))


@pytest.mark.parametrize('name', STATES)
def test_checkpoints_of_before_load(name):
    kind, latent = name.split(', ', 1)
    if latent == "std_source='mean'":
        latent = dict(std_source='mean')
    else:
        latent = latent_config(*latent.split(', '))
    model = build(kind, latent)
    saved = {k: torch.rand(shape) for k, shape in STATES[name].items()}
    loaded = model.load_state_dict(saved, strict=False)
    assert not loaded.unexpected_keys
    own = ('bottleneck.', 'encoder.', 'critic', 'fc_mean', 'head.hidden')
    assert not [
        key
        for key in loaded.missing_keys
        if any(part in key for part in own)
        and 'fpn_bottleneck' not in key
        and 'decode_head.bottleneck' not in key
    ]
