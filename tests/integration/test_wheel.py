"""A built wheel carries configs and tools, and its configs resolve."""

import os
import shutil
import subprocess
import sys

import pytest
from support import REPOSITORY


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The wheel, built from a copy of the sources and installed without
    dependencies into a folder of its own."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    shutil.copytree(
        REPOSITORY,
        source,
        # and what other tests write to meanwhile
        ignore=shutil.ignore_patterns(
            '.git',
            'data',
            'work_dirs',
            'build',
            '__pycache__',
            '.*_cache',
            '_made',
        ),
    )
    pip = [sys.executable, '-m', 'pip', '--quiet']
    subprocess.run(
        [*pip, 'wheel', '--no-deps', '--no-build-isolation',
         '--wheel-dir', str(folder), str(source)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob('mmaib-*.whl')
    subprocess.run(
        [*pip, 'install', '--no-deps', '--target', str(folder / 'site'),
         str(wheel)],
        check=True,
    )  # fmt: skip
    return folder / 'site'


def test_carries_configs_and_tools(installed):
    mim = installed / 'mmaib' / '.mim'
    for name in (
        'model-index.yml',
        'tools/train.py',
        'tools/dist_train.sh',
        'tools/slurm_train.sh',
        'configs/_base_/models/faster-rcnn_lite0_fpn.py',
        'configs/detection/faster_rcnn/aib-qt_faster-rcnn_r50_fpn_1x_coco.py',
    ):
        assert (mim / name).is_file(), name
    for name in (
        'experiments',
        'demo.py',
        'benchmark.py',
        'setup_env.sh',
        'activate',
    ):
        assert not (mim / 'tools' / name).exists(), name
    assert not (installed / 'tests').exists()


def test_its_tools_run(installed, tmp_path):
    tool = installed / 'mmaib' / '.mim' / 'tools' / 'train.py'
    out = subprocess.run(
        [sys.executable, tool, '--help'],
        env={**os.environ, 'PYTHONPATH': str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert '--work-dir' in out.stdout, out.stderr[-2000:]


def test_its_configs_resolve_as_a_base(installed, tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = 'mmaib::detection/faster_rcnn/"
        "aib-qt_faster-rcnn_r50_fpn_1x_coco.py'\n"
    )
    code = f"""
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmaib import compat
compat.register_config_sources()
cfg = Config.fromfile({str(child)!r})
init_default_scope('mmdet')
from mmdet.registry import MODELS
cfg.model.backbone.init_cfg = None
print(type(MODELS.build(cfg.model)).__name__, compat.__file__)
"""
    out = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f'AIBFasterRCNN {installed}' in out.stdout, out.stderr[-2000:]
