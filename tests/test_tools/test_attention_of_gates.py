"""Pictures and files of a gate's information and of uncertainty, from
checkpoints that nothing was trained of."""

import numpy as np
import pytest
import torch
from support import CONFIGS, DIGITS
from support import segmentation as seg

GATE = DIGITS.with_name('gate_upernet_lite0_1xb8-500_digits-128x128.py')
STAGE2 = (
    CONFIGS
    / 'sample'
    / 'camvid'
    / 'latent-stage2_upernet_lite0_1xb4-200_camvid-320x240.py'
)
SLIDE = [
    '--cfg-options', 'model.test_cfg.mode=slide',
    'model.test_cfg.crop_size=(96,96)', 'model.test_cfg.stride=(32,32)',
]  # fmt: skip


@pytest.mark.parametrize('options', [[], SLIDE], ids=['whole', 'slide'])
def test_information_is_drawn_and_kept(run, data, tmp_path, options):
    cfg = seg.config(GATE)
    cfg.model.backbone.pretrained = False
    checkpoint = tmp_path / 'model.pth'
    classes = dict(classes=['clutter', 'digit'], palette=[[0] * 3, [255] * 3])
    torch.save(
        dict(
            state_dict=seg.build(cfg).state_dict(),
            meta=dict(dataset_meta=classes),
        ),
        checkpoint,
    )
    run(
        'mmaib', 'visualize', GATE, checkpoint,
        data / 'digits' / 'img_dir' / 'val',
        '--max-images', 1, '--out', tmp_path / 'maps', *options,
    )  # fmt: skip
    bits = np.load(tmp_path / 'maps' / '0000.bits.npy')
    assert bits.shape == (128, 128)
    assert np.isfinite(bits).all()
    assert bits.sum() > 1
    assert (tmp_path / 'maps' / '0000.png').stat().st_size > 10_000


def test_uncertainty_is_drawn_and_kept_without_any_map(run, data, tmp_path):
    cfg = seg.config(STAGE2)
    cfg.model.backbone.pretrained = False
    checkpoint = tmp_path / 'model.pth'
    classes = dict(classes=[*'abcdefghijk'], palette=[[0, 0, 9]] * 11)
    state = dict(state_dict=seg.build(cfg).state_dict())
    torch.save(dict(state, meta=dict(dataset_meta=classes)), checkpoint)
    run(
        'mmaib', 'visualize', STAGE2, checkpoint,
        data / 'digits' / 'img_dir' / 'val',
        '--max-images', 1, '--out', tmp_path / 'maps', '--cfg-options',
        'model.test_draws.latent=2',
    )  # fmt: skip
    entropy, mutual = (
        np.load(tmp_path / 'maps' / f'0000.{name}.npy')
        for name in ('entropy', 'mutual_information')
    )
    assert entropy.shape == mutual.shape == (128, 128)
    assert (entropy > mutual).all()
    assert mutual.max() > 0
    assert (tmp_path / 'maps' / '0000.png').stat().st_size > 10_000
