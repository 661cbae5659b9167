"""A readout that is published: what its files hold, and that they are read
without running anything."""

import ast
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import save_checkpoint
from support import classification as cls

import mmaib
from mmaib.cli.published import parse
from mmaib.models.base_checkpoint import BaseCheckpoint, learned

LOG = {
    'accuracy/top1': 70.0,
    'ablation/open/accuracy/top1': 72.0,
    'ablation/mirror/accuracy/top1': 50.0,
    'attention/auc': 0.75,
}


def config(**readout):
    """Of a base model, or of a readout over it."""
    cfg = cls.shrink(cls.config('vgg16-aib'))
    bottleneck = dict(modulation=dict(type='mmaib.InformationGate'))
    cfg.model.neck.bottleneck = bottleneck
    if readout:
        cfg.model.update(readout)
    return cfg


@pytest.fixture
def trained(tmp_path):
    """A readout's folder as a training leaves it, its base model's file and
    the model."""
    torch.manual_seed(0)
    base = cls.build(config())
    path = tmp_path / 'my disk' / 'base.pth'
    path.parent.mkdir()
    save_checkpoint(dict(state_dict=base.state_dict()), str(path))
    cfg = config(frozen='base', base_checkpoint=str(path))
    model = cls.build(cfg)
    model.load_state_dict(base.state_dict())
    for name, value in model.named_parameters():
        if 'bottleneck' in name:
            value.data += 1.0
    work_dir = tmp_path / 'work'
    log = work_dir / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    entries = [{'loss': 1.0, 'step': 5, 'gate_open': 0.5}, {**LOG, 'step': 5}]
    lines = [repr(entry).replace("'", '"') for entry in entries]
    (log / 'scalars.json').write_text('\n'.join(lines))
    own = learned(model, model.state_dict(), BaseCheckpoint.of(path))
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')), cfg=str(path))
    save_checkpoint(
        dict(state_dict=own, meta=meta, optimizer=dict(path=str(path))),
        str(work_dir / 'iter_5.pth'),
    )
    (work_dir / 'last_checkpoint').write_text('/elsewhere/iter_5.pth')
    cfg.dump(work_dir / 'readout.py')
    return work_dir, path, model.eval()


def test_what_is_published_is_loaded_again_over_its_base_model(
    trained, tmp_path
):
    work_dir, base, model = trained
    folder = tmp_path / 'published'
    mmaib.save_readout(work_dir, folder)
    assert {p.name for p in folder.iterdir()} == {
        'config.py', 'readout.pth', 'README.md',
    }  # fmt: skip
    assert (folder / 'readout.pth').stat().st_size < base.stat().st_size / 2
    moved = base.rename(tmp_path / 'moved.pth')
    again = mmaib.load_readout(folder, moved, device='cpu')
    assert not again.training
    assert again.dataset_meta == dict(classes=('cat', 'dog'))
    own, theirs = model.state_dict(), again.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    image = dict(inputs=[cls.inputs(1)['inputs'][0]], data_samples=None)
    answers = [m.test_step(dict(image))[0].pred_score for m in (model, again)]
    assert torch.equal(*answers)
    # another file under that name
    save_checkpoint(dict(state_dict={}), str(moved))
    with pytest.raises(ValueError, match='SHA-256'):
        mmaib.load_readout(folder, moved, device='cpu')


def test_a_map_that_is_no_gate_has_no_share(trained, tmp_path):
    work_dir, _, _ = trained
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    log.write_text(log.read_text().replace('"gate_open": 0.5', '"time": 1.0'))
    mmaib.save_readout(work_dir, tmp_path / 'published')
    card = (tmp_path / 'published' / 'README.md').read_text()
    (row,) = re.findall(r'\| the readout \|.*', card)
    assert '| - |' in row


def test_the_card_has_the_records_and_nothing_has_a_path_of_the_disk(
    trained, tmp_path
):
    work_dir, base, _ = trained
    folder = tmp_path / 'published'
    mmaib.save_readout(work_dir, folder)
    card = (folder / 'README.md').read_text()
    assert BaseCheckpoint.of(base).sha256 in card
    rows = [line for line in card.splitlines() if line.startswith('| ')]
    assert len(rows) == 4  # head, rule, the base model, the readout
    assert '72.0' in rows[2]
    assert '70.0' in rows[3]
    assert '20.0' in rows[3]  # lost by mirror
    assert '0.750' in rows[3]
    for file in folder.iterdir():
        assert b'my disk' not in file.read_bytes(), file


def test_files_and_whole_models_are_left_alone(trained, tmp_path):
    work_dir, _, model = trained
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'notes').write_text('mine')
    with pytest.raises(ValueError, match='not empty'):
        mmaib.save_readout(work_dir, folder)
    assert [p.name for p in folder.iterdir()] == ['notes']
    whole = dict(state_dict=model.state_dict(), meta={})
    save_checkpoint(whole, str(work_dir / 'iter_5.pth'))
    with pytest.raises(ValueError, match="whole model's"):
        mmaib.save_readout(work_dir, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_the_hub_gets_and_gives_the_same_files(trained, tmp_path, monkeypatch):
    work_dir, base, model = trained
    remote = tmp_path / 'remote'

    def upload_folder(repo_id, folder_path):
        import shutil

        shutil.copytree(folder_path, remote / repo_id)

    def snapshot_download(repo_id, allow_patterns):
        assert (remote / repo_id / 'README.md').exists()
        assert 'README.md' not in allow_patterns
        return str(remote / repo_id)

    hub = SimpleNamespace(
        create_repo=lambda name, exist_ok: None,
        upload_folder=upload_folder,
        snapshot_download=snapshot_download,
    )
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    mmaib.save_readout(work_dir, 'hf://me/map')
    again = mmaib.load_readout('hf://me/map', base, device='cpu')
    own, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('import os\nmodel = {}', 'line 1: not a field'),
        ('model = print()', 'line 1: not a field and a literal'),
        ("a = 1\nmodel = {'type': __import__('os')}", 'line 2'),
        ("model = {'type': 'os.system'}", r"'os\.system' is not registered"),
        ("model = {'t': [('mmdet.utils.os.system',)]}", 'is not registered'),
    ],
)
def test_a_config_that_would_run_something_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, 'config.py')


def test_a_config_of_literals_is_read_as_python_would():
    text = "model = {'type': 'mmaib.AIBNeck', 'at': (1, 2), 'x': [None, -1.0]}"
    assert parse(text, 'config.py') == dict(
        model=ast.literal_eval(text.partition(' = ')[2])
    )
    assert Config(parse(text, 'config.py')).model.at == (1, 2)
