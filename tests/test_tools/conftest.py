import json
import os
import subprocess
import sys

import pytest

from mmaib.datasets import trees
from mmaib.testing import REPOSITORY


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Folder with the tree data set."""
    folder = tmp_path_factory.mktemp('data')
    trees.build(folder / 'trees')
    return folder


@pytest.fixture
def scalars():
    """Read the entries of a run's log."""

    def read(work_dir):
        (path,) = work_dir.glob('*/vis_data/scalars.json')
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def run(data):
    """Run a tool on the sample data; its output."""

    def run_tool(script, *args, check=True):
        done = subprocess.run(
            [sys.executable, str(script), *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                'PYTHONPATH': str(REPOSITORY),
                'MMAIB_DATA': str(data),
                'OMP_NUM_THREADS': '1',
            },
        )
        assert not check or done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    return run_tool
