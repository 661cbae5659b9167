import json
import sys

import pytest
from mmengine.config import Config
from support import REPOSITORY

PETS = REPOSITORY / 'tools' / 'experiments' / 'pets.py'


@pytest.fixture
def pets(monkeypatch):
    monkeypatch.syspath_prepend(str(PETS.parent))
    import pets

    yield pets
    for name in ('pets', 'study'):
        sys.modules.pop(name, None)


def test_the_layout_is_the_papers_and_the_figures_the_logs(
    pets, run, tmp_path
):
    arm = pets.arm_of('efficientnet-b0', 'rect-', '7:3')
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        work_dir = arm.work_dir(tmp_path, seed)
        log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        entries = [
            {'loss': 2.0, 'time': 1.0},
            {'accuracy/top1': accuracy, 'step': 2},
        ]
        log.write_text('\n'.join(map(json.dumps, entries)))
        (work_dir / 'finished').touch()
    run(PETS, '--out', tmp_path, '--report-only')
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in (tmp_path / 'table1.md').read_text().splitlines()
        if line.startswith('|')
    ]
    assert rows[0] == [
        'Model', 'train/val ratio', '6:4, here', '6:4, paper', '7:3, here',
        '7:3, paper', '8:2, here', '8:2, paper',
    ]  # fmt: skip
    assert len(rows) == 2 + 8
    assert rows[2][2:] == [
        'not run', '91.153', 'not run', '92.344', 'not run', '92.630'
    ]  # fmt: skip
    (here,) = [row for row in rows if row[4] != 'not run'][2:]
    assert here[:2] == ['efficientnet-b0', 'rectangle attention, no EQVC']
    assert here[4:6] == ['91.000 ± 1.414', '94.355']


def test_a_run_divides_all_data_sets_by_its_own_seed(pets):
    arm = pets.arm_of('mobilenetv3-large', 'rect-equi-', '6:4')
    cfg = Config.fromfile(arm.config)
    for option in arm.options:
        field, value = option.format(seed=3).split('=')
        cfg.merge_from_dict({field: float(value)})
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        assert loader.dataset.share == 0.6
        assert loader.dataset.seed == 3


def test_without_the_data_the_page_is_named(pets, run, tmp_path):
    """Once, before any of the 120 trainings."""
    out = run(
        PETS, '--out', tmp_path / 'out', '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}/nowhere',
        check=False,
    )  # fmt: skip
    assert 'https://www.robots.ox.ac.uk/~vgg/data/pets/' in out
    assert 'start' not in out
    assert not (tmp_path / 'out').exists()
