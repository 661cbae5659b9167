"""The judge of explanations, which is trained on hidden parts."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support import CONFIGS


@pytest.fixture
def judge(studies):
    import judge

    return judge


def test_parts_are_hidden_by_their_blur(judge):
    np.random.seed(0)
    image = np.random.randint(0, 256, (64, 96, 3), np.uint8)
    boxes = object()
    shares = []
    for _ in range(200):
        found = judge.HideParts()(dict(img=image, gt_bboxes=boxes))
        assert found['gt_bboxes'] is boxes
        assert found['img'].dtype == np.uint8
        changed = (found['img'] != image).any(2)
        # of noise a blur leaves the mean
        assert (abs(found['img'][changed] - 127.5) < 60).all()
        shares.append(changed.mean())
    assert 0.4 < np.mean(shares) < 0.6
    assert min(shares) < 0.05
    assert max(shares) > 0.95


def test_its_config_hides_parts_before_packing(judge, monkeypatch, tmp_path):
    from mmaib.cli.loading import read_config

    commands = []

    def run(command):
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(judge.subprocess, 'run', run)
    base = CONFIGS / 'sample/trees/faster-rcnn_lite0_fpn_6e_trees-256.py'
    line = ['judge.py', base, tmp_path / 'epoch_6.pth', '--out', tmp_path]
    monkeypatch.setattr(sys, 'argv', [*map(str, line)])
    with pytest.raises(SystemExit) as left:
        judge.main()
    assert left.value.code == 0
    cfg = read_config(commands[0][4])
    steps = [s['type'] for s in cfg.train_dataloader.dataset.pipeline]
    assert steps[-2:] == ['HideParts', 'PackDetInputs']
    assert 'HideParts' not in str(cfg.test_dataloader)
    assert cfg.load_from == str(tmp_path / 'epoch_6.pth')
