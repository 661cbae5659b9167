import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from support.detection import COCO

from mmaib.cli import launch, runs
from mmaib.cli.parser import parser_of


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    """Not that of the repository that its environment lies in."""
    assert runs.commit() != 'unknown'
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    monkeypatch.setattr(runs, 'ROOT', tmp_path / 'venv')
    assert runs.commit() == 'unknown'


@pytest.mark.parametrize('how', ['kill', 'Ctrl-C'])
def test_a_stopped_command_stops_its_training(how):
    """Also by kill, which reaches one process alone."""
    before = signal.getsignal(signal.SIGTERM)
    command = [sys.executable, '-c', 'import time; time.sleep(600)']

    def stop(program):
        with runs.stopped_with(program):
            if how == 'Ctrl-C':  # a process in the background ignores SIGINT
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            program.wait()

    with subprocess.Popen(command) as program:
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            stop(program)
        assert program.wait() == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_config_whose_library_is_missing(monkeypatch):
    """Every config of ours has a base model's as its base, so parsing comes
    first to know."""
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda name: False
    )
    args = parser_of('train').parse_args(
        [str(COCO / 'aib_faster-rcnn_r50_fpn_1x_coco.py')]
    )
    with pytest.raises(
        ModuleNotFoundError, match='mmdet is not installed: pip install'
    ):
        launch.load_config(args)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            dict(runner_type='FlexibleRunner'),
            "runner_type='FlexibleRunner'.*mmaib needs",
        ),
        (
            dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
            r'model_wrapper_cfg\.type=.MMFully.*the shard of rank 0',
        ),
    ],
)
def test_runners_that_shard_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        launch.build_runner(Config(fields), ())


class Constant(BaseModel):
    def forward(self, inputs, data_samples, mode):
        return [dict(seg_logits=dict(data=image)) for image in inputs]


@pytest.mark.parametrize('first', [True, False])
def test_one_process_writes_a_tests_metrics(
    new_runner, tmp_path, monkeypatch, first
):
    """The base libraries' LoggerHook has all of them write the same file at
    once."""
    monkeypatch.setattr(launch, 'is_main_process', lambda: first)
    runner = new_runner(
        Constant(), dict(inputs=[torch.ones(2)], data_samples=[None])
    )
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: runner)
    monkeypatch.setattr(launch.preflight, 'check_library', lambda scope: None)

    launch.build_runner(Config(), ()).test()

    assert len(list(tmp_path.glob('*/*.json'))) == first


def test_processes_without_a_gpu_do_not_share_buffers(monkeypatch):
    """A gate's statistics are averaged over processes by itself."""
    monkeypatch.setattr(launch, 'is_distributed', lambda: True)
    cfg = Config(dict(launcher='pytorch'))
    launch._join_without_gpu(cfg)
    assert cfg.model_wrapper_cfg.broadcast_buffers is False
    assert cfg.model_wrapper_cfg.find_unused_parameters is False
