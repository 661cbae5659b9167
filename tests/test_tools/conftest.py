import json
import os
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from mmengine.registry import MODELS, TRANSFORMS
from support import REPOSITORY
from support.processes import run_python

from mmaib.datasets import digits, trees


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Folder with the sample data sets."""
    folder = tmp_path_factory.mktemp('data')
    trees.build(folder / 'trees')
    digits.build(folder / 'digits')
    return folder


@pytest.fixture
def studies(monkeypatch):
    """The folder of the studies, as modules; what is imported of it, and
    registered there, is forgotten afterwards."""
    folder = REPOSITORY / 'tools' / 'experiments'
    monkeypatch.syspath_prepend(str(folder))
    own = {path.stem for path in folder.glob('*.py')}
    before = {*sys.modules}
    yield folder
    for name in own & {*sys.modules} - before:
        del sys.modules[name]
    for registry in (MODELS, TRANSFORMS):
        for name, made in [*registry.module_dict.items()]:
            if made.__module__ in own - before:
                registry.module_dict.pop(name)


@pytest.fixture
def scalars():
    """Read the entries of a run's log."""

    def read(work_dir):
        (path,) = work_dir.glob('*/vis_data/scalars.json')
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def probed(tmp_path):
    """A config in which the hooks of `mmaib_probes` can be named."""

    def write(base):
        path = tmp_path / f'probed_{base.name}'
        path.write_text(
            f'_base_ = {str(base)!r}\n'
            "custom_imports = dict(imports=['mmaib', 'mmaib_probes'])\n"
        )
        return path

    return write


class Output(str):
    """What a tool printed, and how it ended."""

    def __new__(cls, text, returncode):
        output = super().__new__(cls, text)
        output.returncode = returncode
        return output


@pytest.fixture
def run(data, tmp_path_factory):
    """Run a tool, or the command mmaib, on the sample data; its output."""

    def run_tool(script, *args, check=True, data_root=data):
        words = ['-m'] if script == 'mmaib' else []  # the command
        words += [str(script), *map(str, args)]
        environ = {
            **os.environ,
            'PYTHONPATH': f'{REPOSITORY}:{Path(__file__).parent}',
            'PYTHON': sys.executable,
            'MASTER_PORT': str(_free_port()),
            'MMAIB_DATA': str(data_root),
            'OMP_NUM_THREADS': '1',
        }
        output = tmp_path_factory.mktemp('run') / 'output'
        if str(script).endswith('.sh'):
            with output.open('wb') as file:
                code = subprocess.run(
                    ['bash', *words],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environ,
                ).returncode
        else:
            code = run_python(words, environ, output)
        text = output.read_text(errors='replace')
        assert not check or code == 0, text[-3000:]
        return Output(text, code)

    return run_tool


# below those that the system hands out: what else listens takes none of them
# between here and the launcher's own bind, seconds later
PORTS = count(20000 + os.getpid() % 600 * 20)


def _free_port():
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return port
