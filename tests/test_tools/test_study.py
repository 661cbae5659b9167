import argparse
import importlib.util
import json
from pathlib import Path

import pytest

from mmaib.testing import REPOSITORY

spec = importlib.util.spec_from_file_location(
    'study', REPOSITORY / 'tools' / 'study.py'
)
study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)


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
        configs=[Path('plain.py'), Path('aib.py'), Path('later.py')],
        seeds=[1, 2],
        out=tmp_path,
        records=None,
        metrics=['coco/bbox_mAP'],
    )
    write_log(tmp_path / 'plain' / 'seed_1', 0.50, 1.0)
    write_log(tmp_path / 'plain' / 'seed_2', 0.54, 1.0)
    write_log(tmp_path / 'aib' / 'seed_1', 0.53, 1.5)
    write_log(tmp_path / 'aib' / 'seed_2', 0.99, 1.5, finished=False)
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in study.table(args).splitlines()[2:5]
    ]
    assert rows == [
        ['plain', '1, 2', '0.5200 ± 0.0283', '-', '1.00 ± 0.00'],
        ['aib', '1', '0.5300', '0.0300', '1.50'],
        ['later', 'not run', 'not run', 'not run', 'not run'],
    ]


def test_metrics_are_those_of_the_logs():
    logs = [{1: {'mIoU': 40.0, 'aAcc': 80.0, 'time': 1.0}}, {}]
    assert study.metrics_to_tabulate([], logs) == ['mIoU', 'aAcc']
    assert study.metrics_to_tabulate(['mIoU'], logs) == ['mIoU']
    assert study.metrics_to_tabulate([], [{}, {}]) == []
    with pytest.raises(SystemExit, match=r'bbox.*the logs have.*mIoU'):
        study.metrics_to_tabulate(['coco/bbox_mAP'], logs)


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(study.subprocess, 'run', started.append)
    (tmp_path / 'finished').touch()
    assert study.train(Path('plain.py'), 1, tmp_path, [])
    assert started == []


def test_a_run_with_other_options_is_not_taken_for_this_one(tmp_path):
    (tmp_path / 'finished').write_text('train_cfg.max_epochs=1')
    assert not study.train(Path('plain.py'), 1, tmp_path, [])
    assert study.train(
        Path('plain.py'), 1, tmp_path, ['train_cfg.max_epochs=1']
    )


def test_a_log_cut_by_a_kill_is_read(tmp_path):
    write_log(tmp_path, 0.5, 1.0)
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    path.write_text(path.read_text() + '\n{"loss": 0.3, "ti')
    assert study.read_log(tmp_path)['coco/bbox_mAP'] == 0.5


def test_a_failed_run_is_not_marked_as_finished(tmp_path):
    assert not study.train(Path('no_such_config.py'), 1, tmp_path / 'run', [])
    assert not (tmp_path / 'run' / 'finished').exists()
    assert (tmp_path / 'run' / 'stdout.log').stat().st_size > 0
