"""The lines that `make setup`, the demo and the README print, pasted into a
clean shell, where `python` has no mmaib."""

import importlib.util
import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support import REPOSITORY

WHERE = 'python -c "import mmaib, sys; print(mmaib.__file__, sys.prefix)"'


@pytest.fixture
def shell(tmp_path):
    """Run lines in a bash that knows of no environment but one that
    `make setup` would find."""
    clean = {
        'HOME': os.environ['HOME'],
        'PATH': '/usr/local/bin:/usr/bin:/bin',
        'MMAIB_PYTHON': sys.executable,
        'MMAIB_VENV_HOME': str(tmp_path / 'environments'),
    }

    def bash(lines, cwd=REPOSITORY):
        return subprocess.run(
            ['bash', '-euc', lines],
            env=clean,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return bash


@pytest.fixture
def environment(shell):
    """A finished environment with the packages of this one."""
    folder = Path(shell('tools/setup_env.sh --path').stdout.strip())
    venv.create(folder)
    (packages,) = folder.glob('lib/python*/site-packages')
    (packages / 'these.pth').write_text('\n'.join(site.getsitepackages()))
    (folder / '.complete').touch()
    return folder


def source_line(text):
    """The one indented line that begins with `source`."""
    (line,) = re.findall(r'^ +(source .*)$', text, re.MULTILINE)
    return line


def test_the_line_of_make_setup_from_any_folder(shell, environment, tmp_path):
    line = source_line(shell('make setup').stdout)
    for cwd in (REPOSITORY, tmp_path):
        done = shell(f'{line}\n{WHERE}', cwd)
        mmaib = REPOSITORY / 'mmaib' / '__init__.py'
        assert done.stdout == f'{mmaib} {environment}\n'


def test_the_line_of_the_readme(shell, environment):
    line = source_line((REPOSITORY / 'README.md').read_text())
    assert str(environment) in shell(f'{line}\n{WHERE}').stdout


def test_the_commands_of_a_summary(shell, environment):
    path = REPOSITORY / 'tools' / 'demo.py'
    spec = importlib.util.spec_from_file_location('demo', path)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    task = demo.DEMOS['detection']
    found = dict.fromkeys(task.metrics, 0.0)
    commands = ['python tools/train.py --help', 'mmaib doctor']
    text = demo.summary(task, 'aib-qt', commands, {}, {}, found)
    text = text.split('\nCommands')[1].split('\nVersions')[0]
    lines = re.findall('^    (.*)$', text, re.MULTILINE)
    assert lines[1:] == commands
    done = shell('\n'.join(lines))
    assert done.returncode == 0, done.stdout
    assert '--cfg-options' in done.stdout
    assert 'compiled ops load' in done.stdout


def test_without_an_environment(shell):
    done = shell('source tools/activate; echo not reached')
    assert done.returncode == 1
    assert "run 'make setup' in" in done.stdout
    assert 'not reached' not in done.stdout
