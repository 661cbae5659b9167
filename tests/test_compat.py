import subprocess
import sys

import pytest
from mmengine.config import Config
from support import REPOSITORY

import mmaib
from mmaib import compat
from mmaib.compat import Package


@pytest.mark.parametrize(
    ('version', 'fits'),
    [
        ('0.9', False),
        ('1.0', True),
        ('1.4.2', True),
        ('1.10.0rc1', True),
        ('2.0', False),
        ('2.0.1+cpu', False),
    ],
)
def test_versions_outside_the_tested_range(monkeypatch, version, fits):
    package = Package('torch', {'x': ('1.0', '2.0')})
    monkeypatch.setattr(compat.metadata, 'version', lambda name: version)
    problem = package.problem()
    assert (problem is None) == fits
    assert fits or f'x {version} is outside' in problem


def test_two_families_in_one_environment(monkeypatch):
    package = Package('torch', {'x': ('1.0', '2.0'), 'y': ('1.0', '2.0')})
    monkeypatch.setattr(compat.metadata, 'version', lambda name: '1.5')
    assert 'x and y both install torch' in package.problem()


def test_python_m_mmaib_tells_versions_and_compiled_ops():
    out = subprocess.run(
        [sys.executable, '-m', 'mmaib', 'doctor'],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert out.returncode == 0, out.stdout
    assert f'mmaib {mmaib.__version__}' in out.stdout
    assert 'compiled ops load' in out.stdout
    for package in compat.PACKAGES:
        assert package.module in out.stdout


def test_a_base_config_resolves_under_the_installed_distribution(tmp_path):
    compat.register_config_sources()
    child = tmp_path / 'child.py'
    child.write_text("_base_ = 'mmseg::_base_/default_runtime.py'\n")
    assert Config.fromfile(child).default_scope == 'mmseg'
