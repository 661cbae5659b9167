import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from support import CONFIGS, REPOSITORY, table_cells
from support.processes import programs

from mmaib.cli import runs
from mmaib.files import alone_in
from mmaib.visualization import tables
from mmaib.visualization.work_dirs import ended_with, read_records

sys.path.insert(0, str(REPOSITORY / 'tools' / 'experiments'))
import study
from records import (
    find_record,
    keep_record,
    refuse_other_runs,
    train_all,
)

GATE_PY = Path('gate.py')


def write_log(work_dir, ap, seconds, finished=True):
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    lines = [
        {'loss': 2.0, 'time': 9.0, 'iter': 1},
        {'coco/bbox_mAP': 0.0, 'step': 1},
        {'loss': 1.0, 'time': seconds, 'iter': 2},
        {'loss': 1.0, 'time': seconds, 'iter': 3},
        {'coco/bbox_mAP': ap, 'step': 3},
    ]
    log.write_text('\n'.join(map(json.dumps, lines)))
    if finished:
        (work_dir / 'finished').touch()


def test_table_is_made_of_the_logs(tmp_path):
    args = argparse.Namespace(
        seeds=[1, 2],
        out=tmp_path,
        records=None,
        metrics=['coco/bbox_mAP'],
        compare=[],
        interval=False,
    )
    arms = [
        study.Arm(name, Path(f'{name}.py'))
        for name in ('plain', 'aib', 'later')
    ]
    write_log(tmp_path / 'plain' / 'seed_1', 0.50, 1.0)
    write_log(tmp_path / 'plain' / 'seed_2', 0.54, 1.0)
    write_log(tmp_path / 'aib' / 'seed_1', 0.53, 1.5)
    write_log(tmp_path / 'aib' / 'seed_2', 0.99, 1.5, finished=False)
    lines = study.table(study.rows_of(arms, args), args)
    assert table_cells('\n'.join(lines))[2:5] == [
        ['plain', '1, 2', '0.5200 ± 0.0283', '-', '1.00 ± 0.00'],
        ['aib', '1', '0.5300', '0.0300', '1.50'],
        ['later', *['not run'] * 4],
    ]


def test_intervals_are_students():
    values = [0.51, 0.49, 0.56, 0.5]
    low, high = stats.t.interval(
        0.95, 3, loc=np.mean(values), scale=stats.sem(values)
    )
    expected = f'{np.mean(values):.4f} ± {(high - low) / 2:.4f}'
    assert tables.cell(values, interval=True) == expected
    assert tables.cell([0.5], interval=True) == '0.5000'


def test_metrics_are_those_of_the_logs():
    logs = [{1: {'mIoU': 40.0, 'aAcc': 80.0, 'time': 1.0}}, {}]
    assert study.metrics_to_tabulate([], logs) == ['mIoU', 'aAcc']
    assert study.metrics_to_tabulate(['mIoU'], logs) == ['mIoU']
    assert study.metrics_to_tabulate([], [{}, {}]) == []
    with pytest.raises(SystemExit, match=r'bbox.*the logs have.*mIoU'):
        study.metrics_to_tabulate(['coco/bbox_mAP'], logs)


def test_a_finished_run_is_not_trained_again(tmp_path, trainings):
    config = write_configs(tmp_path)[0]
    work_dir = tmp_path / 'run'
    options = ['train_cfg.max_epochs=1']
    assert runs.train(config, 1, work_dir, options)
    assert runs.train(config, 1, work_dir, options)
    assert len(trainings.commands) == 1


def test_one_process_trains_a_run(tmp_path, trainings, capsys):
    config = write_configs(tmp_path)[0]
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    with alone_in(work_dir):
        assert not runs.train(config, 1, work_dir, [])
    assert 'another process trains in it' in capsys.readouterr().out
    assert not trainings.commands
    assert not [*work_dir.iterdir()]
    assert runs.train(config, 1, work_dir, [])


@pytest.mark.parametrize(
    ('changed', 'seed', 'options', 'other'),
    [
        (False, 1, ['train_cfg.max_epochs=1'], '--cfg-options'),
        (False, 2, [], 'seed'),
        (True, 1, [], 'config'),
    ],
)
def test_another_run_is_not_taken_for_this_one(
    tmp_path, trainings, capsys, changed, seed, options, other
):
    config = write_configs(tmp_path)[0]
    assert runs.train(config, 1, tmp_path / 'run', [])
    if changed:
        config.write_text('lr = 2\n')
    assert not runs.train(config, seed, tmp_path / 'run', options)
    assert f'finished with another {other}; take' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('changed', 'seed', 'options', 'other'),
    [
        (False, 1, ['lr=2'], '--cfg-options'),
        (False, 2, [], 'seed'),
        (True, 1, [], 'config'),
    ],
)
def test_a_run_that_was_cut_off_is_gone_on_with_as_it_was_begun(
    tmp_path, trainings, changed, seed, options, other
):
    config = write_configs(tmp_path)[0]
    run = tmp_path / 'run'
    trainings.code = -9  # killed, with a checkpoint
    assert not runs.train(config, 1, run, [])
    before = disk(run)
    if changed:
        config.write_text('lr = 2\n')
    with pytest.raises(SystemExit, match=f'run: begun with another {other}; '):
        train_all([(config, seed, run, options)], 1)
    assert disk(run) == before
    assert len(trainings.commands) == 1
    config.write_text('lr = 1\n')
    trainings.code = 0
    assert train_all([(config, 1, run, [])], 1)
    assert len(trainings.commands) == 2


def test_a_mistake_that_nothing_was_trained_with_is_mended(
    tmp_path, trainings
):
    config = write_configs(tmp_path)[0]
    trainings.code, trainings.saves = 1, False
    assert not runs.train(config, 1, tmp_path / 'run', ['lr=2'])
    trainings.code, trainings.saves = 0, True
    assert train_all([(config, 1, tmp_path / 'run', ['lr=3'])], 1)


@pytest.mark.parametrize('name', ['epoch_7.pth', 'last_checkpoint'])
def test_a_checkpoint_that_nobody_knows_is_left_alone(
    name, tmp_path, trainings
):
    """Of a training by hand."""
    config = write_configs(tmp_path)[0]
    run = tmp_path / 'run'
    run.mkdir()
    (run / name).write_text('theirs')
    with pytest.raises(SystemExit, match=f'{name} in it is of a run that is'):
        train_all([(config, 1, run, [])], 1)
    assert disk(run) == {name: 'theirs'}
    assert trainings.commands == []


@pytest.mark.parametrize('field', ['load_from', 'model.init_cfg.checkpoint'])
def test_another_checkpoint_of_the_same_name_is_another(
    field, tmp_path, trainings
):
    config = write_configs(tmp_path)[0]
    start = tmp_path / 'plain' / 'seed_1' / 'epoch, 1.pth'
    start.parent.mkdir(parents=True)
    start.write_text('one')
    for code in (-9, 0):  # cut off, and finished
        trainings.code = code
        one = (config, 1, tmp_path / 'run', [f'{field}={start}'])
        start.write_text('one')
        runs.train(*one)
        start.write_text('two')
        message = 'with another checkpoint to start from; take'
        with pytest.raises(SystemExit, match=message):
            train_all([one], 1)
    assert len(trainings.commands) == 2
    # the same one, elsewhere, is no other
    if field == 'load_from':
        moved = tmp_path / 'moved.pth'
        moved.write_text('one')
        options = [f'{field}={moved}']
        assert train_all([(config, 1, tmp_path / 'run', options)], 1)
        assert len(trainings.commands) == 2


def test_another_run_is_refused_before_any_is_trained(tmp_path, trainings):
    plain, gate, _ = write_configs(tmp_path)
    assert runs.train(gate, 1, tmp_path / 'b', [])
    both = [(plain, 1, tmp_path / 'a', ['lr=2']),
            (gate, 1, tmp_path / 'b', ['lr=2'])]  # fmt: skip
    with pytest.raises(SystemExit, match='b: finished with another --cfg'):
        train_all(both, 2)
    assert len(trainings.commands) == 1
    assert not (tmp_path / 'a').exists()


def test_how_far_a_run_is_stands_in_its_log(tmp_path):
    log = tmp_path / 'stdout.log'
    stamp = '2026/11/28 19:00:00 - mmengine - INFO -'
    for line, expected in (
        ('Distributed training: False', None),
        ('Epoch(train)  [1][10/50]  base_lr: 1.0e-02 lr: 1.0e-02  '
         'eta: 0:01:02  time: 0.1', 'Epoch(train)  [1][10/50], 0:01:02 left'),
        ('Iter(train) [ 20/200]  lr: 1e-2  eta: 1 day, 0:00:09  time: 0.5',
         'Iter(train) [ 20/200], 1 day, 0:00:09 left'),
        ('Saving checkpoint at 200 iterations',
         'Iter(train) [ 20/200], 1 day, 0:00:09 left'),
        ('Iter(val) [3/3]    mIoU: 8.0  data_time: 0.1', 'Iter(val) [3/3]'),
        ('evaluation 1 of 4 with changed maps, open', 'evaluation 1 of 4'),
        ('evaluation 2 of 4 with changed maps, mirror  eta: 0:00:09',
         'evaluation 2 of 4, 0:00:09 left'),
    ):  # fmt: skip
        with log.open('a') as file:
            file.write(f'{stamp} {line}\n')
        assert runs.where(log) == expected


def test_how_far_a_run_is_is_printed_while_it_goes_on(
    tmp_path, trainings, monkeypatch
):
    config = write_configs(tmp_path)[0]
    said, begun = [], []

    def slow(command, **kwargs):
        if begun:
            return trainings(command, **kwargs)
        begun.append(command)
        kwargs['stdout'].write('Iter(train) [1/2]  eta: 0:00:01  time: 1\n')
        kwargs['stdout'].flush()
        raise subprocess.TimeoutExpired(command, 1)

    def note(*words, **_):
        said.append(' '.join(map(str, words)).strip())

    monkeypatch.setattr(runs, 'print', note, raising=False)
    monkeypatch.setattr(runs, 'subprocess', programs(slow))
    run = tmp_path / 'run'
    assert runs.train(config, 1, run, [])
    assert said == [
        f'start  {run}', f'{run}: Iter(train) [1/2], 0:00:01 left',
        f'done   {run}',
    ]  # fmt: skip


def test_a_record_is_not_written_over_by_one_of_other_options(
    tmp_path, trainings
):
    config = write_configs(tmp_path)[0]
    records = tmp_path / 'records.jsonl'
    run = (config, 1, tmp_path / 'a')
    assert train_all(
        [(*run, ['lr=1', 'load_from=/a/plain/seed_1/e'])], 1, records
    )
    # where the study lies is no difference
    again = (config, 1, tmp_path / 'b')
    assert train_all(
        [(*again, ['lr=1', 'load_from=/b/plain/seed_1/e'])], 1, records
    )
    with pytest.raises(SystemExit, match=r'plain, seed 1, is of .*lr=1'):
        train_all([(config, 1, tmp_path / 'c', ['lr=2'])], 1, records)
    assert len(trainings.commands) == 2


def test_an_evaluation_without_a_metric_has_not_the_one_before(tmp_path):
    """A detector that finds nothing has none."""
    write_log(tmp_path, 0.5, 1.0)
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [
        {'time': 1.0, 'step': 4},
        {'ablation/mirror/aux': 0.1, 'step': 99},
    ]
    path.write_text('\n'.join([path.read_text(), *map(json.dumps, lines)]))
    found = ended_with(tmp_path)
    assert AP not in found
    assert found['ablation/mirror/aux'] == 0.1


def test_a_run_shorter_than_the_interval_of_its_log(tmp_path):
    log = tmp_path / '1' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({AP: 0.5, 'step': 1}))
    (tmp_path / 'finished').touch()
    assert ended_with(tmp_path) == {AP: 0.5, 'step': 1}


def test_a_seed_that_diverged_shows():
    assert tables.cell([0.5, float('nan')]) == 'nan ± nan'


def test_a_log_cut_by_a_kill_is_read(tmp_path):
    write_log(tmp_path, 0.5, 1.0)
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    path.write_text(path.read_text() + '\n{"loss": 0.3, "ti')
    assert ended_with(tmp_path)['coco/bbox_mAP'] == 0.5


def test_a_failed_run_is_not_marked_as_finished(tmp_path):
    config = tmp_path / 'no_library.py'
    config.write_text('lr = 1\n')
    assert not runs.train(config, 1, tmp_path / 'run', [])
    assert not (tmp_path / 'run' / 'finished').exists()
    assert (tmp_path / 'run' / 'stdout.log').stat().st_size > 0


class Trainings:
    """Stands in for `tools/train.py`: writes what a training leaves."""

    def __init__(self):
        self.commands = []
        self.code, self.saves = 0, True

    def __call__(self, command, **kwargs):
        if command[0] == 'git':
            return SimpleNamespace(stdout='abc123\n')
        self.commands.append(command)
        config = Path(command[4]).stem
        work_dir = Path(command[command.index('--work-dir') + 1])
        # the second time it is resumed
        shutil.rmtree(work_dir / '20260101_000000', ignore_errors=True)
        write_log(work_dir, 0.5, 1.0, finished=False)
        log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
        evaluation = {
            AP: 0.5,
            'attention/auc': 0.8,
            'attention/bits_per_image': 1234.5,
            'step': 3,
        }
        lines = [evaluation, {f'ablation/mirror/{AP}': 0.375, 'step': 287}]
        if config != 'plain':
            log.write_text(
                '\n'.join([log.read_text(), *map(json.dumps, lines)])
            )
        if self.saves:
            last = work_dir / 'last_checkpoint'
            last.write_text(f'{work_dir}/epoch_3.pth\n')
        return SimpleNamespace(returncode=self.code)

    def options(self, config):
        """Of the trainings of a config, in their order."""
        return [
            command[command.index('--cfg-options') + 1 :]
            for command in self.commands
            if Path(command[4]).stem == config
        ]


AP = 'coco/bbox_mAP'


@pytest.fixture
def trainings(monkeypatch):
    own = Trainings()
    monkeypatch.setattr(runs, 'subprocess', programs(own))
    return own


def disk(folder):
    return {p.name: p.read_text() for p in folder.rglob('*') if p.is_file()}


def write_configs(folder):
    paths = [folder / f'{name}.py' for name in ('plain', 'gate', 'readout')]
    for path in paths:
        path.write_text('lr = 1\n')
    return paths


@pytest.fixture
def command(trainings, monkeypatch, tmp_path):
    """Run study.py in this process; the trainings it began."""
    write_configs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, out='out'):
        arguments = [*arguments, '--out', tmp_path / out, '--jobs', 1]
        line = ['study.py', *map(str, arguments)]
        monkeypatch.setattr(sys, 'argv', line)
        before = len(trainings.commands)
        study.main()
        return trainings, len(trainings.commands) - before

    return run


def cells(text):
    head, _, *rows = table_cells(text)
    return [dict(zip(head, row)) for row in rows]


STUDY = ('plain.py', 'gate.py', '--readout', 'readout.py')


def test_a_readout_starts_from_the_first_configs_base_model_of_its_seed(
    command, tmp_path
):
    trainings, count = command(
        *STUDY, '--seeds', 1, 2, '--cfg-options', 'a=1'
    )  # fmt: skip
    assert count == 6
    assert trainings.options('plain') == trainings.options('gate') == [
        ['randomness.seed=1', 'a=1'], ['randomness.seed=2', 'a=1']
    ]  # fmt: skip
    assert trainings.options('readout') == [
        [
            f'randomness.seed={seed}',
            'a=1',
            f'load_from={tmp_path}/out/plain/seed_{seed}/epoch_3.pth',
        ]
        for seed in (1, 2)
    ]
    # behind all base models, and none again
    assert [Path(c[4]).stem for c in trainings.commands[4:]] == ['readout'] * 2
    assert command(*STUDY, '--seeds', 1, 2, '--cfg-options', 'a=1')[1] == 0


def test_records_are_kept_and_make_the_table_alone(command, tmp_path, capsys):
    records = tmp_path / 'records.jsonl'
    command(*STUDY, '--seeds', 1, 2, '--records', records)
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [(line['name'], line['seed']) for line in lines] == [
        (config, seed)
        for config in ('gate', 'plain', 'readout')
        for seed in (1, 2)
    ]
    one = tmp_path / 'out' / 'readout' / 'seed_2' / 'record.json'
    record = json.loads(one.read_text())
    assert lines[-1] == {'name': 'readout', **record}
    assert (record['config'], record['seed']) == ('readout', 2)
    assert record['commit'] == 'abc123'
    assert record['options'] == [
        f'load_from={tmp_path}/out/plain/seed_2/epoch_3.pth'
    ]
    assert record['metrics'][AP] == 0.5
    assert record['metrics'][f'ablation/mirror/{AP}'] == 0.375
    assert record['versions']['torch']
    assert record['seconds'] is None  # no log tells
    capsys.readouterr()
    made = cells((tmp_path / 'out' / 'table.md').read_text())
    command(
        *STUDY, '--seeds', 1, 2, '--records', records, '--report-only',
        out='elsewhere',
    )  # fmt: skip
    assert cells(capsys.readouterr().out) == made
    # without the records nothing is known
    command(*STUDY, '--seeds', 1, 2, '--report-only', out='nowhere')
    assert {row['seeds'] for row in cells(capsys.readouterr().out)} == {
        'not run'
    }


def test_what_maps_carry_and_where_they_look_has_columns(command, capsys):
    command(*STUDY, '--seeds', 1, 2)
    plain, gate, readout = cells(capsys.readouterr().out)
    assert [*plain][:2] == ['config', 'seeds']
    assert [*plain][-4:] == [
        'lost by mirror', 'AUC', 'bits an image', 'seconds per step'
    ]  # fmt: skip
    assert plain['lost by mirror'] == plain['AUC'] == '-'
    for row in (gate, readout):
        assert row['lost by mirror'] == '0.1250 ± 0.0000'
        assert row['AUC'] == '0.800 ± 0.000'
        assert row['bits an image'] in ('1234 ± 0', '1235 ± 0')


def test_other_records_are_rows_beside(command, tmp_path, capsys):
    records = tmp_path / 'records.jsonl'
    command(*STUDY, '--seeds', 1, 2, '--records', records)
    capsys.readouterr()
    others = tmp_path / 'weight-0.1.jsonl'
    record = find_record(records, 'gate', 2, GATE_PY)
    record['metrics'][AP] += 0.25
    keep_record(others, 'gate', record)
    compared = (*STUDY, '--seeds', 1, 2, '--report-only', '--compare')
    command(*compared, others)
    *first, row = cells(capsys.readouterr().out)
    assert len(first) == 3
    assert row['config'] == 'weight-0.1: gate'
    assert row['seeds'] == '2'
    assert row['paired difference'] == '0.2500'
    with pytest.raises(SystemExit):
        command(*compared, tmp_path)
    assert 'no records there' in capsys.readouterr().err
    # two configs that begin alike are two rows
    del record['name']
    keep_record(others, 'gate_b', record)
    command(*compared, others)
    *_, one, other = cells(capsys.readouterr().out)
    assert [one['config'], other['config']] == [
        'weight-0.1: gate', 'weight-0.1: gate_b'
    ]  # fmt: skip


KEEP = """
import sys
from pathlib import Path
from records import keep_record
for seed in range(25):
    keep_record(Path(sys.argv[1]), 'gate', dict(seed=seed, metrics={}))
"""


def test_two_processes_lose_no_record(tmp_path):
    file = tmp_path / 'records.jsonl'
    at_once = [
        subprocess.Popen(
            [sys.executable, '-c', KEEP, f'{file}#{name}'],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        )
        for name in 'ab'
    ]
    assert [one.wait() for one in at_once] == [0, 0]
    assert len(read_records(file)) == 50
    assert [*tmp_path.iterdir()] == [file]


def test_a_record_of_another_config_is_neither_taken_nor_replaced(tmp_path):
    records = tmp_path / 'records.jsonl#all'
    record = dict(seed=1, config='bccd', options=[], metrics={AP: 0.5})
    keep_record(records, 'base', record)
    run = Path('trees.py'), 1, tmp_path / 'none', [], 'base'
    with pytest.raises(SystemExit, match='seed 1, is of the config bccd, not'):
        refuse_other_runs([run], records)
    args = SimpleNamespace(out=tmp_path, seeds=[1], records=records)
    with pytest.raises(SystemExit, match='not of trees: take another file or'):
        study.finished(study.Arm('base', Path('trees.py')), args)


def test_sets_of_one_file_are_kept_apart(command, tmp_path, capsys):
    file, of_set = tmp_path / 'records.jsonl', tmp_path / 'records.jsonl#b-0.1'
    keep_record(file, 'gate', dict(seed=1, metrics={AP: 0.5}))
    keep_record(of_set, 'gate', dict(seed=1, metrics={AP: 0.7}))
    keep_record(of_set, 'gate', dict(seed=1, metrics={AP: 0.75}))
    assert find_record(file, 'gate', 1, GATE_PY)['metrics'] == {AP: 0.5}
    assert find_record(of_set, 'gate', 1, GATE_PY)['metrics'] == {AP: 0.75}
    assert (
        find_record(tmp_path / 'records.jsonl#c', 'gate', 1, GATE_PY) is None
    )
    assert [path.name for path in tmp_path.glob('*.jsonl*')] == [file.name]
    assert len(file.read_text().splitlines()) == 2
    compared = ('gate.py', '--report-only', '--seeds', 1, '--records', file)
    command(*compared, '--compare', f'{file}#b-*')
    first, row = cells(capsys.readouterr().out)
    assert [first[AP], row['config'], row[AP]] == [
        '0.5000', 'b-0.1: gate', '0.7500'
    ]  # fmt: skip


def test_the_seconds_of_a_run_are_those_of_all_its_trainings(
    command, tmp_path
):
    work_dir = tmp_path / 'out' / 'plain' / 'seed_1'
    write_log(work_dir, 0.5, 1.0)
    for name, first, last in (
        ('killed', '23:59:50', '23:59:59'), ('resumed', '10:00:00', '10:01:21')
    ):  # fmt: skip
        (work_dir / name).mkdir()
        (work_dir / name / 'a.log').write_text(
            f'2026/11/26 {first} - mmengine - INFO - begins\n'
            f'    2025/01/01 00:00:00 - not a line of its own\n'
            f'2026/11/26 {last} - mmengine - INFO - ends\n'
        )
    assert command('plain.py', '--seeds', 1)[1] == 0
    record = json.loads((work_dir / 'record.json').read_text())
    assert record['seconds'] == 90
    assert record['metrics'][AP] == 0.5


@pytest.mark.parametrize(
    ('config', 'page'),
    [
        ('detection/faster_rcnn/aib_faster-rcnn_r50_fpn_1x_coco.py', 'coco'),
        (
            'segmentation/upernet/'
            'aib_beit-base_upernet_8xb2-160k_ade20k-640x640.py',
            'ade',
        ),
    ],
)
def test_data_that_are_missing_are_told_before_the_first_run(
    run, tmp_path, config, page
):
    """Of configs over the base libraries' own, too."""
    out = run(
        REPOSITORY / 'tools' / 'experiments' / 'study.py', CONFIGS / config,
        '--out',
        tmp_path / 'out', '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}/{page}',
        check=False,
    )  # fmt: skip
    assert out.returncode
    assert f"train_dataloader.dataset.data_root: '{tmp_path}/{page}'" in out
    assert 'start' not in out
    assert not (tmp_path / 'out').exists()


def test_a_failed_base_model_has_no_readout(command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        runs, 'train', lambda config, *_: config.stem != 'gate'
    )
    monkeypatch.setattr(runs, 'write_record', lambda *_: None)
    with pytest.raises(SystemExit, match='some runs failed'):
        command(*STUDY, '--seeds', 1)


def kept(records, name, seed, **metrics):
    record = dict(seed=seed, metrics={'step': 9, **metrics})
    keep_record(records, name, record)


def test_a_seed_that_found_nothing_counts(command, tmp_path, capsys):
    """Shuffled, seed 2 of the gate finds nothing: 0.05 without it, 0.225
    with it. Seed 2 of the plain detector finds nothing at all."""
    records, shuffled = tmp_path / 'records.jsonl', f'ablation/shuffle/{AP}'
    kept(records, 'plain', 1, **{AP: 0.5})
    kept(records, 'plain', 2)
    kept(records, 'gate', 1, **{AP: 0.5, shuffled: 0.45})
    kept(records, 'gate', 2, **{AP: 0.4, 'attention/auc': 0.8})
    table = (
        'plain.py', 'gate.py', '--seeds', 1, 2, '--records', records,
        '--report-only',
    )  # fmt: skip
    command(*table, '--metrics', AP)
    plain, gate = cells(capsys.readouterr().out)
    assert plain[AP] == '0.2500 ± 0.3536'
    assert gate['paired difference'] == '0.2000 ± 0.2828'
    assert gate['lost by shuffle'] == '0.2250 ± 0.2475'
    assert plain['lost by shuffle'] == '-'
    # a figure that is not 0 without detections has its count
    assert gate['AUC'] == '0.800 (1 of 2)'
    command(*table)
    assert cells(capsys.readouterr().out)[0][AP] == plain[AP]
    for seed, error in ((1, 0.1), (2, 0.3)):
        kept(records, 'gate', seed, **{AP: 0.5, 'calibration/d_ece': error})
    kept(records, 'plain', 1, **{AP: 0.5, 'calibration/d_ece': 0.2})
    command(*table, '--metrics', AP, 'calibration/d_ece')
    plain, gate = cells(capsys.readouterr().out)
    assert plain['calibration/d_ece'] == '0.2000 (1 of 2)'
    assert gate['paired difference'] == '-0.1000 (1 of 2)'


def test_baselines_of_an_auc_and_an_energy_stand_beside_them(
    command, tmp_path, capsys
):
    found = dict(auc=0.7, auc_norm=0.6, auc_centre=0.65, energy=0.5, area=0.4)
    metrics = {f'attention/{name}': value for name, value in found.items()}
    kept(tmp_path / 'records.jsonl', 'plain', 1, **{AP: 0.5}, **metrics)
    command(
        'plain.py', '--seeds', 1, '--records', tmp_path / 'records.jsonl',
        '--report-only',
    )  # fmt: skip
    (row,) = cells(capsys.readouterr().out)
    assert [*row][4:9] == [
        'AUC', "AUC of the features' norm", 'AUC of the centre', 'energy',
        'area',
    ]  # fmt: skip
    assert [*row.values()][4:9] == [
        '0.700',
        '0.600',
        '0.650',
        '0.500',
        '0.400',
    ]


GATE = {'attention/bits_per_image': 900, 'attention/auc': 0.8}


def test_a_row_and_a_training_for_each_value(command, capsys):
    """Each seed starts from a checkpoint of its own."""
    options = ['--values', 'lr', 0.1, '1e-5', '--seeds', 1, 2]
    start = 'load_from=bases/seed_{seed}/last.pth'
    trainings, new = command(
        'plain.py', 'gate.py', *options, '--cfg-options', start
    )
    assert new == 6
    ends = [c[-3:] for c in trainings.commands]
    assert ends[1] == [
        'randomness.seed=1', 'load_from=bases/seed_1/last.pth', 'lr=0.1'
    ]  # fmt: skip
    assert ends[5][1:] == ['load_from=bases/seed_2/last.pth', 'lr=1e-5']
    names = [row['config'] for row in cells(capsys.readouterr().out)]
    assert names == ['plain', 'gate_lr-0.1', 'gate_lr-1e-5']
    assert not command('plain.py', 'gate.py', *options, '--cfg-options',
                       start)[1]  # fmt: skip


def test_the_curve_is_over_bits(command, tmp_path, monkeypatch):
    records = tmp_path / 'records.jsonl'
    for name, ap, bits in (('1', 0.50, 900), ('0.1', 0.55, 9000)):
        for seed in (1, 2):
            kept(records, f'gate_lr-{name}', seed, **{
                **GATE, 'coco/bbox_mAP': ap + 0.02 * seed,
                'attention/bits_per_image': bits,
            })  # fmt: skip
    kept(records, 'plain', 1, **{'coco/bbox_mAP': 0.57})
    figures = []
    drawn = study.curve
    monkeypatch.setattr(
        study, 'curve', lambda *a: figures.append(drawn(*a)) or figures[-1]
    )
    command(
        'plain.py', 'gate.py', '--values', 'lr', 0.1, 1, '--seeds', 1, 2,
        '--records', records, '--report-only',
    )  # fmt: skip
    assert (tmp_path / 'out' / 'curve.png').stat().st_size > 5000
    ap, auc = figures[0].axes
    line, base = [x for x in ap.lines if len(x.get_xdata()) == 2]
    assert list(line.get_xdata()) == [9000, 900]
    assert list(line.get_ydata()) == pytest.approx([0.58, 0.53])
    assert list(base.get_ydata()) == pytest.approx([0.57, 0.57])
    assert ap.get_xscale() == auc.get_xscale() == 'log'
    assert [text.get_text() for text in auc.texts] == ['0.1', '1']


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (['lr', 1, 1], '--values lr: values that differ'),
        (['lr'], '--values lr: values that differ'),
        (['model.neck.beta', 1], 'no model in'),
    ],
)
def test_values_that_cannot_be_trained(command, capsys, values, message):
    with pytest.raises(SystemExit):
        command('gate.py', '--values', *values)
    assert message in capsys.readouterr().err
