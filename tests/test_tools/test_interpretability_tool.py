"""Table 8 by one command, of checkpoints that nothing was trained of."""

import json
import re
import shutil

import pytest
import torch
from support import DIGITS, REPOSITORY, table_cells
from support import segmentation as seg

TOOLS = REPOSITORY / 'tools' / 'experiments'
PLAIN = DIGITS.with_name('upernet_lite0_1xb8-500_digits-128x128.py')
GATE = PLAIN.with_name(f'gate_{PLAIN.name}')
CLASSES = dict(classes=['clutter', 'digit'], palette=[[0] * 3, [255] * 3])


def work_dir(folder, path):
    """As a training leaves it."""
    cfg = seg.config(path)
    cfg.model.backbone.pretrained = False
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(
        dict(
            state_dict=seg.build(cfg).state_dict(),
            meta=dict(dataset_meta=CLASSES),
        ),
        folder / 'iter_1.pth',
    )
    (folder / 'last_checkpoint').write_text('/elsewhere/iter_1.pth')
    (folder / path.name).write_text(f'_base_ = {str(path)!r}')
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        work_dir(tmp_path / name, path)
        for name, path in (('plain', PLAIN), ('gate', GATE))
    ]


def test_the_table_of_a_segmentor_and_of_its_baseline(
    run, data, tmp_path, folders
):
    run(
        TOOLS / 'interpretability.py', *folders, '--out', tmp_path / 'out',
        '--patches', data / 'trees' / 'test', '--max-images', 2,
        '--no-ablations',
    )  # fmt: skip
    text = (tmp_path / 'out' / 'interpretability.md').read_text()
    tables = [*map(table_cells, text.split('\n\n')[:2])]
    assert tables[0][0] == [
        'Model', 'Spatial', 'p=4', 'p=8', 'p=12', 'p=16', 'Frequency',
        'score',
    ]  # fmt: skip
    names = [PLAIN.stem, GATE.stem, 'a uniform map']
    assert [row[0] for row in tables[0][2:]] == [
        n for n in names for _ in '12'
    ]
    assert tables[0][2][2:6] == ['no map'] * 4
    by_name = {row[0]: row for row in tables[1][2:]}
    assert by_name[PLAIN.stem][7] == 'no map'
    uniform, gate = by_name['a uniform map'], by_name[GATE.stem]
    assert gate[2] == uniform[2]  # the same answers
    assert uniform[3:8] == [
        '100.0 [100.0, 100.0]',
        '100.0 [100.0, 100.0]',
        '100.0 [100.0, 100.0]',
        '0.000 [0.000, 0.000]',
        '0.000 [0.000, 0.000]',
    ]
    assert float(gate[7].split()[0]) > 0
    assert by_name[PLAIN.stem][-1] == '-'
    value, low, high = map(float, re.findall(r'[\d.]+', gate[2]))
    assert low <= value <= high


def test_a_folder_that_is_no_work_dir(run, tmp_path):
    out = run(
        TOOLS / 'interpretability.py', tmp_path, '--out', tmp_path / 'out',
        check=False,
    )  # fmt: skip
    assert out.returncode == 2
    assert 'neither a work dir with a config and a checkpoint' in out


def test_the_test_set_beside_its_truth(run, tmp_path, folders):
    """What a report's gallery is made of."""
    out = folders[1] / 'attention'
    run(
        'mmaib', 'visualize', GATE, folders[1] / 'iter_1.pth',
        '--out', out, '--max-images', 2,
    )  # fmt: skip
    scores = json.loads((out / 'scores.json').read_text())['images']
    assert [*scores] == ['0000', '0001']
    for name, found in scores.items():
        # the config names the digits as what a map should find
        assert 0 <= found['auc'] <= 1
        assert 0 <= found['base/IoU'] <= 1
        assert found['bits_per_image'] > 0
        assert (out / f'{name}.overlay.jpg').exists()


def test_a_folder(run, data, tmp_path, folders):
    paths = sorted((data / 'digits' / 'img_dir' / 'val').iterdir())[:2]
    images = tmp_path / 'images'
    images.mkdir()
    for path in paths:
        shutil.copy(path, images)
    out = tmp_path / 'out'
    run(
        'mmaib', 'visualize', GATE, folders[1] / 'iter_1.pth', images,
        '--out', out,
    )  # fmt: skip
    scores = json.loads((out / 'scores.json').read_text())['images']
    assert [*scores] == [path.stem for path in paths]
