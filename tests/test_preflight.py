import json

import pytest
import torch
from mmengine.config import Config

from mmaib import preflight
from mmaib.aux_losses import with_aux_losses
from mmaib.layers import AttentiveBottleneck


def data_config(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/train.json').write_text(json.dumps({}))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/train.json',
    )
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset)
    return Config(dict(train_dataloader=dict(dataset=repeated)))


def test_data_that_are_there(tmp_path):
    preflight.check_data(
        data_config(tmp_path), ('train_dataloader', 'val_dataloader')
    )


@pytest.mark.parametrize(
    ('field', 'value'),
    [('data_root', '/no/such/folder'), ('ann_file', 'annotations/none.json')],
)
def test_data_that_are_not(tmp_path, field, value):
    cfg = data_config(tmp_path)
    cfg.train_dataloader.dataset.dataset[field] = value
    with pytest.raises(
        FileNotFoundError,
        match=rf'train_dataloader\.dataset\.dataset\.{field}.*{value}',
    ):
        preflight.check_data(cfg, ('train_dataloader',))


class Host(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bottleneck = AttentiveBottleneck(4)

    def loss(self):
        return {}


def test_a_model_that_does_not_collect():
    with pytest.raises(TypeError, match="bottleneck.*base='Host'"):
        preflight.check_collects(Host())
    outer = torch.nn.Module()
    outer.student = with_aux_losses(Host)()
    preflight.check_collects(outer)
    outer.teacher = Host()
    with pytest.raises(TypeError, match=r'teacher\.bottleneck'):
        preflight.check_collects(outer)
    preflight.check_collects(torch.nn.Linear(1, 1))


def test_a_host_that_is_not_installed(monkeypatch):
    preflight.check_host('mmdet')
    preflight.check_host(None)
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='mmdet.*pip install'):
        preflight.check_host('mmdet')
