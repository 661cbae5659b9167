import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import MODEL_WRAPPERS
from support import segmentation as seg

from mmaib import preflight
from mmaib.preflight import resumed_checkpoint


@MODEL_WRAPPERS.register_module(name='WrapperOfTestWeights')
class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ('cfg', 'field'),
    [
        (dict(load_from='no.pth'), 'load_from'),
        (dict(model=dict(pretrained='no.pth')), 'model.pretrained'),
        (
            dict(
                model=dict(
                    backbone=dict(
                        init_cfg=dict(type='Pretrained', checkpoint='no.pth')
                    )
                )
            ),
            'model.backbone.init_cfg.checkpoint',
        ),
    ],
)
def test_weights_that_are_not_there(cfg, field):
    with pytest.raises(FileNotFoundError, match=f"{field}: 'no.pth'"):
        preflight.check_weights(Config(cfg))


@pytest.mark.parametrize('name', ['torchvision://resnet50', True])
def test_weights_that_are_remote(name):
    preflight.check_weights(Config(dict(model=dict(pretrained=name))))


def test_weights_that_are_there(tmp_path, monkeypatch):
    cfg = Config(dict(load_from=str(tmp_path / 'weights.pth')))
    torch.save(dict(state_dict={}), cfg.load_from)
    preflight.check_weights(cfg)
    monkeypatch.setenv('HOME', str(tmp_path))
    preflight.check_weights(Config(dict(load_from='~/weights.pth')))
    (tmp_path / 'weights.pth').write_bytes(b'<html>not found</html>')
    with pytest.raises(ValueError, match=r"load_from: '.*not a whole.*22 byt"):
        preflight.check_weights(cfg)


class Saved(torch.nn.Module):
    def __init__(self, width=2, **buffers):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        for name, value in buffers.items():
            self.register_buffer(name, value)


class Keeping(Saved):
    def get_extra_state(self):
        return dict(kept=1)

    def set_extra_state(self, state):
        pass


def resuming(tmp_path, model):
    torch.save(
        dict(state_dict=model.state_dict(), optimizer={}),
        tmp_path / 'iter_2.pth',
    )
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    return Config(dict(resume=True, work_dir=str(tmp_path)))


def test_resuming_the_same_model(tmp_path):
    cfg = resuming(tmp_path, Saved())
    preflight.check_resume(cfg, Saved())
    preflight.check_resume(cfg, Wrapped(Saved()))
    # a buffer that the code has gained since is no parameter
    preflight.check_resume(cfg, Saved(steps=torch.zeros(1)))
    # and what a module keeps beside its tensors is no parameter either
    cfg = resuming(tmp_path, Keeping())
    preflight.check_resume(cfg, Keeping())
    # nothing was saved yet, or nothing is asked for
    preflight.check_resume(
        Config(dict(resume=True, work_dir=str(tmp_path / 'new'))), Saved()
    )
    preflight.check_resume(Config(dict(resume=False)), Saved(3))


def test_resuming_another_model(tmp_path):
    cfg = resuming(tmp_path, Saved())
    with pytest.raises(
        ValueError,
        match=r'architecture:\n  weight is \(2,\) in it, \(3,\)',
    ):
        preflight.check_resume(cfg, Saved(3))
    cfg = resuming(tmp_path, Saved(gate=torch.ones(1)))
    with pytest.raises(ValueError, match='gate is only in it'):
        preflight.check_resume(cfg, Saved())
    grown = Saved()
    grown.anchors = torch.nn.Parameter(torch.ones(20))
    with pytest.raises(ValueError, match='anchors is not in it'):
        preflight.check_resume(cfg, grown)


class Averaged(BaseTTAModel):
    def merge_preds(self, samples):
        return samples


@pytest.mark.parametrize('around', [None, Averaged, Wrapped])
def test_metrics_of_another_model_are_told(tmp_path, monkeypatch, around):
    said = []
    monkeypatch.setattr(preflight.weights, 'warn', said.append)

    def tell(model):
        model.test_step = None
        preflight.warn_untrained(path, around(model) if around else model)
        return ''.join(said)

    path = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict=Saved().state_dict()), path)
    assert tell(Saved()) == ''
    assert 'size mismatch for weight' in tell(Saved(3))
    grown = Saved()
    grown.anchors = torch.nn.Parameter(torch.ones(20))
    assert 'anchors is not in it' in tell(grown)
    torch.save(grown.state_dict(), path)
    assert 'anchors is only in it' in tell(Saved())


def test_resuming_what_is_not_whole(tmp_path):
    cfg = resuming(tmp_path, Saved())
    whole = (tmp_path / 'iter_2.pth').read_bytes()
    (tmp_path / 'iter_2.pth').write_bytes(whole[:-9])
    with pytest.raises(ValueError, match='not a whole.*No other checkpoint'):
        preflight.check_resume(cfg, Saved())
    (tmp_path / 'iter_1.pth').write_bytes(whole)
    with pytest.raises(ValueError, match=r'--resume .*iter_1\.pth'):
        preflight.check_resume(cfg, Saved())
    torch.save(dict(model={}), tmp_path / 'iter_2.pth')
    with pytest.raises(
        ValueError, match='no checkpoint of a training.*iter_1'
    ):
        preflight.check_resume(cfg, Saved())
    # a base library's hook that was killed while it wrote the name
    (tmp_path / 'last_checkpoint').write_text('')
    with pytest.raises(FileNotFoundError, match=r"'' is not there.*iter_1"):
        preflight.check_resume(cfg, Saved())


def test_the_seed_of_what_is_resumed(tmp_path):
    path = tmp_path / 'iter_2.pth'
    torch.save(dict(state_dict={}, meta=dict(seed=7)), path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    own = dict(seed=None, diff_rank_seed=True)
    latest = dict(resume=True, work_dir=str(tmp_path), randomness=own)
    elsewhere = str(tmp_path / 'elsewhere')
    named = dict(latest, work_dir=elsewhere, load_from=str(path))
    other = dict(latest, randomness=dict(own, seed=3))
    for fields in (latest, named, other):
        cfg = Config(fields)
        preflight.take_seed(cfg)
        assert cfg.randomness == dict(seed=7, diff_rank_seed=True)
    # weights alone, a new training, and what MMEngine itself reads
    for fields in (
        dict(latest, resume=False),
        dict(latest, work_dir=elsewhere),
        dict(latest, load_from='http://host/iter_2.pth'),
    ):
        cfg = Config(fields)
        preflight.take_seed(cfg)
        assert cfg.randomness == own
    cfg = Config(dict(latest, load_from='no.pth'))
    preflight.check_weights(cfg)
    with pytest.raises(FileNotFoundError, match="resume: 'no.pth' is not"):
        preflight.take_seed(cfg)


def test_beits_weights_are_told_with_their_converter():
    cfg = seg.config(seg.UPERNET / seg.BEIT)
    with pytest.raises(
        FileNotFoundError, match=r'model.pretrained.*beit2mmseg\.py'
    ):
        preflight.check_weights(cfg)


@pytest.mark.parametrize('latest', ['a.pth', 'b.pth'])
def test_the_latest_whole_checkpoint_is_named(tmp_path, latest):
    for name in ('a.pth', 'b.pth'):
        torch.save(dict(optimizer={}), tmp_path / name)
        os.utime(tmp_path / name, (9, 9) if name == latest else (5, 5))
    told = resumed_checkpoint._whole_checkpoints(str(tmp_path))
    assert told.endswith(f'--resume {tmp_path / latest}')


def test_an_address_is_no_file():
    # as argparse hands it over
    address = str(Path('https://example.org/a.pth'))
    with pytest.raises(FileNotFoundError, match='a.pth: download it first'):
        preflight.check_checkpoint('checkpoint', address)
