"""A trained model explained by one command, of base libraries that nothing was
trained of."""

import json
import re

import pytest
import torch
from support import CONFIGS, table_cells
from test_interpretability_tool import PLAIN, work_dir

from mmaib.cli.loading import build_model, read_config
from mmaib.cli.main import main
from mmaib.models.base_checkpoint import BaseCheckpoint
from mmaib.preflight.checkpoint import read_checkpoint

FEW = 'val_dataloader.dataset.indices=3'


def rows(text):
    table = table_cells(text)
    return {row[0]: dict(zip(table[0], row)) for row in table[2:]}


def test_a_segmentor_is_explained_and_a_second_time_nothing_is_trained(
    run, data, tmp_path
):
    # a name that MMEngine makes a list of, and files of the base model's
    folder = work_dir(tmp_path / 'a, base model', PLAIN)
    checkpoint = folder / 'iter_1.pth'
    results = tmp_path / 'results'
    results.mkdir()
    for image in (data / 'digits' / 'img_dir' / 'val').iterdir():
        (results / f'{image.stem}.png').write_text('of the base model')
    out = tmp_path / 'out'

    def read_out(*more, check=True):
        return run(
            'mmaib', 'readout', PLAIN, checkpoint, '--out', out,
            '--iterations', 3,
            '--pictures', 1, *more,
            '--cfg-options', FEW, 'train_dataloader.batch_size=2',
            f'val_evaluator.output_dir={results}',
            check=check,
        )  # fmt: skip

    said = read_out()
    assert 'start' in said
    text = (out / 'readout.md').read_text()
    (log,) = out.glob('*/vis_data/scalars.json')
    found = {}
    for line in log.read_text().splitlines():
        found.update(json.loads(line))
    table = rows(text)
    base_model, readout = (
        table['none: the base model, gate open'],
        table['the readout'],
    )
    assert base_model['mIoU'] == f'{found["ablation/open/mIoU"]:.4f}'
    assert base_model['share open'] == '1.000'
    assert readout['mIoU'] == f'{found["mIoU"]:.4f}'
    lost = found['mIoU'] - found['ablation/mirror/mIoU']
    assert readout['lost by mirror'] == f'{lost:.4f}'
    assert readout['share open'] == f'{found["gate_open"]:.3f}'
    assert (
        readout['bits an image'] == f'{found["attention/bits_per_image"]:.0f}'
    )
    page = (out / 'report.html').read_text()
    assert page.count('<figure ') == 1
    # what was learned alone, and which base model it was learned over
    trained = read_checkpoint(str(out / 'iter_3.pth'))['state_dict']
    base = BaseCheckpoint.from_tensor(trained.pop('base_checkpoint'))
    assert base == BaseCheckpoint.of(checkpoint)
    assert {key.partition('bottleneck')[0] for key in trained} == {'neck.'}
    again = read_out()
    assert 'start' not in again
    assert 'visualize' not in again
    assert rows((out / 'readout.md').read_text()) == table
    refused = read_out('--iterations', 4, check=False)
    assert refused.returncode
    assert 'with another --iterations' in refused
    files = [*results.iterdir()]
    assert len(files) == 80
    assert {path.read_text() for path in files} == {'of the base model'}


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'options', 'message'),
    [
        (PLAIN, 'nowhere.pth', [], 'checkpoint: no file nowhere.pth'),
        (PLAIN, 'text.pth', [], "checkpoint: 'text.pth' is not a whole"),
        (
            CONFIGS / 'sample' / 'digits' / f'gate_{PLAIN.name}',
            'whole.pth',
            [],
            'already contains mmaib',
        ),
        (
            PLAIN,
            'whole.pth',
            ['train_dataloader=None'],
            'train_dataloader is None in .*the map learns from',
        ),
        (
            PLAIN,
            'whole.pth',
            ['test_dataloader=None'],
            'test_dataloader is None in .*pictures are of its images',
        ),
        (
            PLAIN,
            'whole.pth',
            ['train_dataloader.dataset.data_root=elsewhere'],
            'train_dataloader.dataset.data_root',
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(
    monkeypatch, capsys, tmp_path, data, config, checkpoint, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMAIB_DATA', str(data))
    (tmp_path / 'text.pth').write_text('no checkpoint')
    torch.save(dict(state_dict={}), tmp_path / 'whole.pth')
    argv = ['readout', str(config), checkpoint, '--out', 'out']
    if options:
        argv += ['--cfg-options', *options]
    assert main(argv) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.rglob('out/*.py'))
    assert not (tmp_path / 'out' / 'stdout.log').exists()


def test_a_folder_with_somebodys_checkpoint_is_left_alone(
    monkeypatch, tmp_path, data, capsys
):
    """As the base model's own, which would be resumed."""
    monkeypatch.setenv('MMAIB_DATA', str(data))
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict={}), path)
    argv = ['readout', str(PLAIN), str(path), '--out', str(tmp_path)]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert re.search('--out .*iter_1.pth in it is of a', said)
    assert [*tmp_path.iterdir()] == [path]


def test_a_checkpoint_with_maps_of_its_own_is_not_read_out(
    monkeypatch, tmp_path, data, capsys
):
    monkeypatch.setenv('MMAIB_DATA', str(data))
    gate = PLAIN.with_name(f'gate_{PLAIN.name}')
    path = tmp_path / 'gate.pth'
    model = build_model(read_config(gate))
    torch.save(dict(state_dict=model.state_dict()), path)
    argv = ['readout', str(PLAIN), str(path), '--out', str(tmp_path / 'out')]
    assert main(argv) == 2
    assert 'neck.bottleneck' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_folder_of_somebodys_files_is_left_alone(tmp_path, capsys):
    path = tmp_path / 'base.pth'
    torch.save(dict(state_dict={}), path)
    out = tmp_path / 'mine'
    out.mkdir()
    (out / 'report.html').write_text('mine')
    argv = ['readout', str(PLAIN), str(path), '--out', str(out)]
    assert main(argv) == 2
    assert 'not empty' in capsys.readouterr().err
