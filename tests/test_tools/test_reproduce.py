"""The papers' tables and figures by one command each."""

import json
import re
import sys
from contextlib import suppress

import pytest
from mmengine.config import Config
from support import REPOSITORY
from support import classification as cls

REPRODUCE = REPOSITORY / 'tools' / 'experiments' / 'reproduce.py'


@pytest.fixture
def papers(monkeypatch):
    monkeypatch.syspath_prepend(str(REPRODUCE.parent))
    import papers

    yield papers
    for name in ('papers', 'study'):
        sys.modules.pop(name, None)


def write_log(work_dir, **metrics):
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = [
        {'loss': 2.0, 'time': 1.0},
        {'accuracy/top1': 1.0, 'step': 1},
        {**metrics, 'step': 2},
    ]
    log.write_text('\n'.join(map(json.dumps, entries)))
    (work_dir / 'finished').touch()


def cells(path):
    return [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in path.read_text().splitlines()
        if line.startswith('|')
    ]


def test_every_numbered_table_and_figure_is_listed(run, tmp_path):
    out = run(REPRODUCE, '--list', '--out', tmp_path)
    found = re.findall(r'^(table|figure) (\w+)/(\d+) ', out, re.M)
    count = {('aib', 'table'): 8, ('aib', 'figure'): 14,
             ('rect', 'table'): 1, ('rect', 'figure'): 10}  # fmt: skip
    assert {*found} == {
        (kind, paper, str(number))
        for (paper, kind), last in count.items()
        for number in range(1, last + 1)
    }
    assert len(found) == 33
    assert re.search(r'table rect/1 .* 24 arms, 0 of 120 runs .*Pet', out)


def test_table_2_has_the_papers_layout_and_the_figures_of_the_logs(
    papers, run, tmp_path
):
    rows = {row.labels[:2]: row for row in papers.combinations(False)}
    quantized = rows['3', 'VGG-aib-qt'].arms['CIFAR-10']
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        work_dir = quantized.work_dir(tmp_path / 'table-aib-2', seed)
        write_log(work_dir, **{'accuracy/top1': accuracy})
    run(
        REPRODUCE, '--table', 'aib/2', '--out', tmp_path, '--seeds', 1, 2,
        '--rows', 0, 3, 6, '--report-only',
    )  # fmt: skip
    head, _, *lines = cells(tmp_path / 'table-aib-2' / 'table.md')
    assert head == [
        'No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types',
        'KL Loss Eva.', 'CIFAR-10, here', 'CIFAR-10, paper',
        'CIFAR-100, here', 'CIFAR-100, paper',
    ]  # fmt: skip
    assert [line[:2] for line in lines] == [
        ['0', 'vanilla VGG'], ['3', 'VGG-aib'], ['3', 'VGG-aib-qt'],
        ['6', 'VGG-aib'], ['6', 'VGG-aib-qt'],
    ]  # fmt: skip
    assert lines[0][6:] == ['not run', '7.77', 'not run', '30.62']
    assert lines[2][6:] == ['9.00 ± 1.41', '4.10', 'not run', '20.87']
    assert lines[4][3] == 'cat'
    assert lines[4][6] == 'not run'


def test_every_row_of_table_2_is_a_model_of_its_own(papers):
    """Its config and options build, and no two rows train the same."""
    seen = {}
    for row in papers.combinations(False):
        cfg = Config.fromfile(row.arms['CIFAR-10'].config)
        for option in row.arms['CIFAR-10'].options:
            field, value = option.split('=')
            with suppress(ValueError):
                value = float(value) if '.' in value else int(value)
            cfg.merge_from_dict({field: value})
        model = repr(cfg.model)
        assert model not in seen.values(), row
        seen[row.labels[:2]] = model
        cls.build(cls.shrink(cfg))
        assert 'CIFAR-100' in row.arms
    assert len(seen) == 2 + 2 * 8


def test_what_the_rows_of_table_2_change(papers):
    options = {
        row.labels[0]: row.arms['CIFAR-10'].options
        for row in papers.combinations(False)
    }
    for line in ('0', '1', '2', '3'):
        assert options[line] == []
    prefix = 'model.neck.bottleneck.modulation.mode='
    assert options['4'] == [f'{prefix}scale']
    assert options['5'] == [f'{prefix}bias']
    assert options['6'] == [
        f'{prefix}concat',
        'model.neck.neck.in_channels=512',
    ]
    adversarial = 'model.head.latent.critic.saturating=True'
    assert options['7'] == [adversarial]
    noise = [
        'model.head.latent.type=mmaib.AdditiveNoiseEncoder',
        'model.head.latent.noise_std=0.0',
    ]
    prefix = 'model.neck.bottleneck.noise.mode='
    assert options['8'] == [adversarial, f'{prefix}additive', *noise]
    assert options['9'] == [
        adversarial,
        'model.neck.neck.in_channels=512',
        f'{prefix}propagated',
        *noise,
    ]


def test_shrunken_models_have_configs(papers):
    """Of every study, at least one in each block of the table."""
    rows = {
        name: [row for row in cell.rows(True) if row.arms]
        for name, cell in papers.CELLS.items()
        if isinstance(cell, papers.Study)
    }
    count = {name: len(found) for name, found in rows.items()}
    assert count == {
        'table aib/2': 15, 'table aib/5': 4, 'table aib/6': 3,
        'table aib/7': 3, 'figure aib/6': 15, 'table rect/1': 4,
    }  # fmt: skip
    for found in rows.values():
        for row in found:
            assert all(arm.config.is_file() for arm in row.arms.values())
            assert not row.paper  # another data set
    doubled = {row.labels[:2]: row for row in rows['table aib/2']}
    (arm,) = doubled['6', 'VGG-aib'].arms.values()
    assert arm.options[1].endswith('in_channels=64')


def test_hyperparameters_build(papers):
    for row in papers.hyperparameters(False):
        cfg = Config.fromfile(row.arms['CIFAR-10'].config)
        (option,) = row.arms['CIFAR-10'].options
        field, value = option.split('=')
        cfg.merge_from_dict({field: float(value) if '.' in value else
                             int(value)})  # fmt: skip
        cls.build(cfg)


def test_the_papers_table_5_has_rows_that_are_not_ours(run, tmp_path):
    run(REPRODUCE, '--table', 'aib/5', '--out', tmp_path, '--report-only')
    head, _, *lines = cells(tmp_path / 'table-aib-5' / 'table.md')
    rows = {line[0]: dict(zip(head[1:], line[1:])) for line in lines}
    assert len(rows) == 12
    assert rows['VGG-PAN']['SVHN, here'] == '-'
    assert rows['VGG-PAN']['SVHN, paper'] == '8.02'
    assert rows['WRN-aib-qt']['CUB-200-2011, here'] == 'not run'
    assert rows['WRN-aib-qt']['CUB-200-2011, paper'] == '16.88'
    assert rows['VGG-aib']['STL10-test, here'] == '-'


def test_three_figures_of_one_detector(papers, run, tmp_path):
    arm = papers.CELLS['table aib/7'].rows(False)[2].arms['mAP']
    write_log(
        arm.work_dir(tmp_path / 'table-aib-7', 1),
        **{'coco/bbox_mAP': 0.38, 'coco/bbox_mAP_50': 0.5,
           'coco/bbox_mAP_75': 0.4},
    )  # fmt: skip
    run(REPRODUCE, '--table', 'aib/7', '--out', tmp_path, '--report-only')
    *_, last = cells(tmp_path / 'table-aib-7' / 'table.md')
    assert last == [
        'Faster R-CNN-aib-qt', '38.0', '38.4', '50.0', '59.3', '40.0', '41.7'
    ]  # fmt: skip


def test_pets_have_the_papers_layout_and_the_figures_of_the_logs(
    papers, run, tmp_path
):
    arm = papers.pet('efficientnet-b0', 'rect-', '7:3')
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        work_dir = arm.work_dir(tmp_path / 'table-rect-1', seed)
        write_log(work_dir, **{'accuracy/top1': accuracy})
    run(REPRODUCE, '--table', 'rect/1', '--out', tmp_path, '--report-only')
    rows = cells(tmp_path / 'table-rect-1' / 'table.md')
    assert rows[0] == [
        'Model', 'train/val ratio', '6:4, here', '6:4, paper', '7:3, here',
        '7:3, paper', '8:2, here', '8:2, paper',
    ]  # fmt: skip
    assert len(rows) == 2 + 8
    assert rows[2][2:] == [
        'not run', '91.153 ± 0.305', 'not run', '92.344 ± 0.442', 'not run',
        '92.630 ± 0.515',
    ]  # fmt: skip
    (here,) = [row for row in rows if row[4] != 'not run'][2:]
    assert here[:2] == ['efficientnet-b0', 'rectangle attention, no EQVC']
    assert here[4:6] == ['91.000 ± 1.414', '94.355 ± 0.396']


def test_a_run_divides_all_data_sets_by_its_own_seed(papers):
    arm = papers.pet('mobilenetv3-large', 'rect-equi-', '6:4')
    cfg = Config.fromfile(arm.config)
    for option in arm.options:
        field, value = option.format(seed=3).split('=')
        cfg.merge_from_dict({field: float(value)})
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        assert loader.dataset.share == 0.6
        assert loader.dataset.seed == 3


def test_without_the_data_the_page_is_named(run, tmp_path):
    """Once, before any of the 120 trainings."""
    out = run(
        REPRODUCE, '--table', 'rect/1', '--out', tmp_path / 'out',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}/nowhere',
        check=False,
    )  # fmt: skip
    assert 'https://www.robots.ox.ac.uk/~vgg/data/pets/' in out
    assert 'start' not in out
    assert not (tmp_path / 'out').exists()


def test_a_dry_run_prints_commands(run, tmp_path):
    out = run(
        REPRODUCE, '--table', 'aib/5', '--rows', 'VGG-aib', '--columns',
        'SVHN', '--out', tmp_path, '--dry-run', '--seeds', 3,
    )  # fmt: skip
    (line,) = out.splitlines()
    assert 'vgg16-aib_1xb128-200e_svhn.py --work-dir' in line
    assert line.endswith('randomness.seed=3')
    out = run(
        REPRODUCE, '--figure', 'rect/9', '--out', tmp_path, '--dry-run'
    )  # fmt: skip
    assert out.startswith('python tools/experiments/rectangles.py')
    assert 'table-rect-1/rect-equi-mobilenetv3' in out
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (['--jobs', 0], '--jobs must be'),
        (['--seeds', 1, 1], 'must differ'),
        (['--rows', 1, 3, '--scale', 'tiny'], 'no config for 1 vanilla WRN'),
        (['--rows', 77], 'no config for any of these; rows: 0, 1, 2'),
    ],
)
def test_what_cannot_be_trained_is_refused(run, tmp_path, options, match):
    out = run(
        REPRODUCE, '--table', 'aib/2', '--out', tmp_path, *options, check=False
    )  # fmt: skip
    assert out.returncode
    assert match in out
    assert not [*tmp_path.iterdir()]


def test_a_figure_without_a_command_says_so(run, tmp_path):
    out = run(REPRODUCE, '--figure', 'aib/11', '--out', tmp_path, check=False)
    assert out.returncode == 1
    assert 'Maps of modified images: no command yet' in out


@pytest.mark.slow
def test_a_table_and_a_figure_of_shrunken_models(run, tmp_path):
    """From training to the paper's layout and to pictures, resumed."""
    short = [
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
        'train_dataloader.dataset.num_images=100',
        'val_dataloader.dataset.num_images=50',
        'test_dataloader.dataset.num_images=20',
    ]  # fmt: skip
    where = ['--scale', 'tiny', '--out', tmp_path]
    table = [
        REPRODUCE, '--table', 'rect/1', *where, '--seeds', 1,
        '--cfg-options', *short,
    ]  # fmt: skip
    assert run(*table).count('done  ') == 4
    again = run(*table)
    assert 'start' not in again
    assert 'no figures of the paper' in again
    run(REPRODUCE, '--figure', 'rect/6', *where)
    run(REPRODUCE, '--figure', 'rect/9', *where)
    figure = tmp_path / 'figure-rect-9-tiny'
    assert (figure / 'rectangles.csv').is_file()
    maps = (tmp_path / 'figure-rect-6-tiny').glob('*/scores.json')
    assert len([*maps]) == 2
