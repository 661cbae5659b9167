"""The papers' tables and figures by one command each."""

import json
import re
import sys
from contextlib import suppress

import pytest
import torch
from mmengine.config import Config
from support import REPOSITORY, table_cells
from support import classification as cls

from mmaib.preflight.checkpoint import read_checkpoint

REPRODUCE = REPOSITORY / 'tools' / 'experiments' / 'reproduce.py'


@pytest.fixture
def papers(studies):
    import papers

    return papers


def write_log(work_dir, best=1.0, **metrics):
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = [
        {'loss': 2.0, 'time': 1.0},
        {'accuracy/top1': best, 'step': 1},
        {**metrics, 'step': 2},
    ]
    log.write_text('\n'.join(map(json.dumps, entries)))
    (work_dir / 'finished').touch()


def cells(path):
    return table_cells(path.read_text())


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
    assert re.search(
        r'table rect/1 .* 24 arms, 0 of 120 runs .*\? h .*Pet', out
    )
    # by the sources that the list ends with: two of aib's and the base model
    assert re.search(r'table aib/7 .* 3 arms, 0 of 3 runs +148 h', out)
    assert round(2 * 8 * 87960 * 0.216 * 1.254 / 3600) + 42 == 148
    assert 'model_zoo.md' in out


def test_table_2_has_the_papers_layout_and_the_figures_of_the_logs(
    papers, run, tmp_path
):
    rows = {row.labels[:2]: row for row in papers.combinations()}
    quantized = rows['3', 'VGG-aib-qt'].arms['CIFAR-10']
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        work_dir = quantized.work_dir(tmp_path / 'runs', seed)
        write_log(work_dir, 92.5, **{'accuracy/top1': accuracy})
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
    assert lines[2][6:] == [
        '9.00 ± 1.41 (7.50 ± 0.00)',
        '4.10',
        'not run',
        '20.87',
    ]
    assert lines[4][3] == 'cat'
    assert lines[4][6] == 'not run'


def test_every_row_of_table_2_is_a_model_of_its_own(papers):
    """Its config and options build, and no two rows train the same."""
    seen = {}
    for row in papers.combinations():
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
        for row in papers.combinations()
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


def test_an_arm_and_its_options_are_narrowed_alike(
    papers, monkeypatch, tmp_path
):
    import reproduce

    rows = {row.labels[:2]: row for row in papers.combinations()}
    arm = rows['6', 'VGG-aib'].arms['CIFAR-10']
    tiny = reproduce.tiny_arm(arm, tmp_path)
    assert tiny.options[1] == 'model.neck.neck.in_channels=64'
    reproduce.write_tiny(arm.config, tiny.config)
    cfg = Config.fromfile(tiny.config)
    assert cfg.model.backbone.channels == [8, 16, 32]
    assert cfg.train_dataloader.dataset.type == 'mmaib.ClutteredDigits'
    pet = papers.pet('efficientnet-b0', 'rect-', '7:3')
    assert reproduce.tiny_arm(pet, tmp_path).options == []
    reproduce.write_tiny(pet.config, tmp_path / 'pet.py')
    cfg = Config.fromfile(tmp_path / 'pet.py')
    assert 'Pretrained' not in cfg.pretty_text
    assert cfg.model.neck.in_channels == 320  # EfficientNet's own


def test_a_run_is_shared_by_all_that_take_it(papers):
    """Lines 0 to 3 of Table 2 are Table 5's, and so are Fig. 6's defaults."""
    of_table5 = {
        arm.name
        for row in papers.classification()
        for arm in row.arms.values()
    }
    rows = papers.combinations()
    shared = [r.labels[0] for r in rows if
              r.arms['CIFAR-10'].name in of_table5]  # fmt: skip
    assert shared == ['0', '1', '2', '2', '3', '3']
    defaults = [row.labels for row in papers.hyperparameters()
                if row.arms['CIFAR-10'].name in of_table5]  # fmt: skip
    assert defaults == [('beta', '0.01'), ('K', '256'), ('Q', '20')]


def test_stl10_is_a_test_of_the_run_of_cifar10(papers, run, tmp_path):
    out = run(
        REPRODUCE, '--table', 'aib/5', '--rows', 'VGG-aib', '--columns',
        'STL10-train', '--out', tmp_path, '--dry-run',
    )  # fmt: skip
    (line,) = out.splitlines()
    assert 'vgg16-aib_1xb128-200e_cifar10.py' in line
    (row,) = [r for r in papers.classification() if r.labels == ('VGG-aib',)]
    arm = row.arms['STL10-train']
    assert arm.test
    assert arm.start == row.arms['CIFAR-10']
    assert arm.config.name.endswith('to-stl10.py')
    work_dir = arm.work_dir(tmp_path / 'runs', 1)
    work_dir.mkdir(parents=True)
    (work_dir / 'metrics.json').write_text('{"accuracy/top1": 49.0}')
    run(REPRODUCE, '--table', 'aib/5', '--out', tmp_path, '--report-only')
    (line,) = [row for row in cells(tmp_path / 'table-aib-5' / 'table.md')
               if row[0] == 'VGG-aib']  # fmt: skip
    assert line[9:] == ['51.00', '50.64', 'not run', '51.24']


def test_splits_and_hyperparameters_have_a_plot(papers, run, tmp_path):
    for seed in (1, 2):
        arm = papers.pet('efficientnet-b0', 'rect-', '7:3')
        write_log(arm.work_dir(tmp_path / 'runs', seed), **{
            'accuracy/top1': 90.0 + seed
        })  # fmt: skip
    for row in papers.hyperparameters()[:3]:
        write_log(row.arms['CIFAR-10'].work_dir(tmp_path / 'runs', 1), **{
            'accuracy/top1': 95.0
        })  # fmt: skip
    run(REPRODUCE, '--figure', 'rect/5', '--out', tmp_path, '--report-only')
    run(REPRODUCE, '--figure', 'aib/6', '--out', tmp_path, '--report-only')
    for name in ('figure-rect-5', 'figure-aib-6'):
        assert (tmp_path / name / 'plot.png').stat().st_size > 10_000


def test_hyperparameters_build(papers):
    for row in papers.hyperparameters():
        cfg = Config.fromfile(row.arms['CIFAR-10'].config)
        for option in row.arms['CIFAR-10'].options:
            field, value = option.split('=')
            cfg.merge_from_dict({field: float(value) if '.' in value else
                                 int(value)})  # fmt: skip
        cls.build(cls.shrink(cfg))


def test_the_papers_table_5_has_rows_that_are_not_ours(run, tmp_path):
    run(REPRODUCE, '--table', 'aib/5', '--out', tmp_path, '--report-only')
    head, _, *lines = cells(tmp_path / 'table-aib-5' / 'table.md')
    rows = {line[0]: dict(zip(head[1:], line[1:])) for line in lines}
    assert len(rows) == 12
    assert rows['VGG-PAN']['SVHN, here'] == '-'
    assert rows['VGG-PAN']['SVHN, paper'] == '8.02'
    assert rows['WRN-aib-qt']['CUB-200-2011, here'] == 'not run'
    assert rows['WRN-aib-qt']['CUB-200-2011, paper'] == '16.88'
    assert rows['VGG-aib']['STL10-test, here'] == 'not run'
    assert rows['VGG-PAN']['STL10-test, here'] == '-'


def test_three_figures_of_one_detector(papers, run, tmp_path):
    arm = papers.CELLS['table aib/7'].rows()[2].arms['mAP']
    write_log(
        arm.work_dir(tmp_path / 'runs', 1),
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
        work_dir = arm.work_dir(tmp_path / 'runs', seed)
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
    assert line.endswith('randomness.seed=3 auto_scale_lr.enable=True')
    out = run(
        REPRODUCE, '--table', 'aib/7', '--rows', 'Faster R-CNN-aib', '--out',
        tmp_path, '--dry-run', '--gpus', 8,
    )  # fmt: skip
    (line,) = out.splitlines()
    assert line.startswith('python -m torch.distributed.run --standalone')
    assert '--nproc-per-node=8 -m mmaib train' in line
    assert '--launcher pytorch' in line
    out = run(
        REPRODUCE, '--figure', 'rect/9', '--out', tmp_path, '--dry-run'
    )  # fmt: skip
    train, draw = out.splitlines()
    assert train.startswith('python -m mmaib train')
    assert draw.startswith('python tools/experiments/rectangles.py')
    assert 'runs/rect-equi-mobilenetv3' in draw
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (['--jobs', 0], '--jobs must be'),
        (['--seeds', 1, 1], 'must differ'),
        (['--gpus', 0], '--gpus must be'),
        (['--cfg-options', 'lr'], "'lr' must be KEY=VALUE"),
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


def test_a_drawing_has_nothing_to_run(run, tmp_path):
    out = run(REPRODUCE, '--figure', 'aib/1', '--out', tmp_path, check=False)
    assert out.returncode == 1
    assert 'a drawing of the method: nothing to run' in out


def names():
    """Of all that has a command."""
    sys.path.insert(0, str(REPRODUCE.parent))
    try:
        import papers

        return [n for n, c in papers.CELLS.items() if c.commands or c.head]
    finally:
        sys.path.remove(str(REPRODUCE.parent))
        for name in ('papers', 'study'):
            sys.modules.pop(name, None)


@pytest.fixture(scope='module')
def everything(tmp_path_factory):
    """Where the runs are that tables and figures share."""
    return tmp_path_factory.mktemp('reproduced')


@pytest.mark.slow
@pytest.mark.parametrize('name', names())
def test_every_table_and_figure_at_tiny_scale(run, everything, name):
    """Its command, from the data to the file."""
    kind, number = name.split()
    out = run(
        REPRODUCE, '--scale', 'tiny', f'--{kind}', number, '--out', everything,
        '--jobs', 2,
    )  # fmt: skip
    folder = everything / 'tiny' / name.replace(' ', '-').replace('/', '-')
    made = [path.name for path in folder.rglob('*') if path.is_file()]
    if name in ('table aib/1', 'table aib/4'):
        assert 'M multiply-adds' in out
    elif name == 'figure aib/7':
        assert f'{len(made)} pictures in' in out  # of models that guess
    else:
        assert made
    if name != 'table aib/3' and 'table.md' in made:  # which is not timed
        assert 'not run' not in (folder / 'table.md').read_text()


@pytest.mark.slow
def test_a_run_that_was_cut_is_resumed(run, everything):
    """As its first epoch left it; what is finished does not start again."""
    words = [
        REPRODUCE, '--scale', 'tiny', '--table', 'aib/5', '--columns', 'SVHN',
        '--rows', 'VGG-aib', 'VGG-aib-qt', '--out', everything, '--jobs', 2,
    ]  # fmt: skip
    run(*words)
    assert 'start' not in run(*words)
    (work_dir,) = everything.glob('tiny/runs/vgg16-aib_*_svhn/seed_1')
    first = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    first['meta'].update(epoch=1, iter=first['meta']['iter'] // 2)
    torch.save(first, work_dir / 'epoch_1.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    for name in ('finished', 'epoch_2.pth'):
        (work_dir / name).unlink()
    assert run(*words).count('start') == 1
    assert 'resumed epoch: 1' in (work_dir / 'stdout.log').read_text()
    assert (work_dir / 'epoch_2.pth').exists()


@pytest.mark.slow
def test_two_processes_by_torchrun(run, tmp_path):
    run(
        REPRODUCE, '--scale', 'tiny', '--table', 'aib/5', '--columns', 'SVHN',
        '--rows', 'VGG-aib', '--out', tmp_path, '--gpus', 2,
    )  # fmt: skip
    (log,) = tmp_path.glob('tiny/runs/*/seed_1/2*/2*.log')
    assert 'Distributed launcher: pytorch' in log.read_text()
    assert 'GPU number: 2' in log.read_text()
