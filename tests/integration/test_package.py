"""What a package has beside its code: an index for mim, a citation, CI."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import CONFIGS, REPOSITORY

import mmaib


def read(path):
    return yaml.safe_load((REPOSITORY / path).read_text())


def test_the_index_has_every_config_once_and_promises_no_weights():
    files = [read(name) for name in read('model-index.yml')['Import']]
    collections = {c['Name'] for f in files for c in f.get('Collections', ())}
    models = [model for file in files for model in file['Models']]
    listed = [model['Config'] for model in models]
    there = [
        str(path.relative_to(REPOSITORY))
        for task in ('detection', 'segmentation', 'classification')
        for path in (CONFIGS / task).rglob('*.py')
    ]
    assert sorted(listed) == sorted(there)
    for model in models:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections
        assert model['Metadata']['Published Weights'] == 'none'
        assert not {'Weights', 'Results'} & model.keys()


def test_the_citation_is_of_this_version():
    assert read('CITATION.cff')['version'] == mmaib.__version__


def test_ci_runs_every_test_once_by_targets_that_there_are():
    jobs = read('.github/workflows/ci.yml')['jobs']
    action = read('.github/actions/environment/action.yml')['runs']
    makefile = (REPOSITORY / 'Makefile').read_text()
    steps = [s for job in jobs.values() for s in job['steps']]
    text = '\n'.join(s.get('run', '') for s in [*steps, *action['steps']])
    targets = set(re.findall(r'make ([a-z-]+)', text))
    assert {'lint', 'pytest', 'docs', 'setup'} <= targets
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.M), target
    covered = []
    for words in jobs['test']['strategy']['matrix']['tests']:
        parts = words.split()
        named = {p for p in parts if not p.startswith('--')}
        left_out = {
            p.removeprefix('--ignore=') for p in parts if p.startswith('--')
        }
        covered += [
            path
            for path in (REPOSITORY / 'tests').rglob('test_*.py')
            if named & parents(path) and not left_out & parents(path)
        ]
    every = (REPOSITORY / 'tests').rglob('test_*.py')
    assert sorted(covered) == sorted(every)


def parents(path):
    return {str(p) for p in path.relative_to(REPOSITORY).parents}


@pytest.mark.slow
def test_mim_finds_and_runs_it(tmp_path):
    """By onedl-mim in an environment of its own, over this one's packages.
    Its 0.5.1 looks for a package beside the first file of its record, which
    is the console script of a wheel: an editable installation has none."""
    subprocess.run(
        [sys.executable, '-m', 'venv', tmp_path / 'env'], check=True
    )
    python = tmp_path / 'env' / 'bin' / 'python'
    (site,) = (tmp_path / 'env' / 'lib').glob('*/site-packages')
    (site / 'base.pth').write_text(str(Path(yaml.__file__).parents[1]))
    source = tmp_path / 'source'
    shutil.copytree(
        REPOSITORY,
        source,
        ignore=shutil.ignore_patterns(
            '.git', 'data', 'work_dirs', 'build', '.mim', '*_cache', '_made'
        ),
    )
    pip = [python, '-m', 'pip', 'install', '--quiet']
    if subprocess.run([*pip, 'onedl-mim']).returncode:
        pytest.skip('onedl-mim cannot be installed')
    subprocess.run(
        [*pip, '--no-deps', '--no-build-isolation', '-e', source], check=True
    )

    def mim(*words):
        done = subprocess.run(
            [python.with_name('mim'), *words],
            cwd=tmp_path,
            env={**os.environ, 'MMAIB_DATA': 'data'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert re.search(r'^mmaib +\d', mim('list'), re.M)
    found = mim('search', 'mmaib', '--model', 'aib', '--dataset', 'coco')
    assert 'aib-qt_faster-rcnn_r50_fpn_1x_coco' in found
    assert re.search(r'published_weights +none', found)
    data = tmp_path / 'data'
    make = ['-m', 'mmaib.datasets.digits', '--out', data / 'digits']
    subprocess.run([python, *make], check=True)
    config = 'gate_upernet_lite0_1xb8-500_digits-128x128.py'
    mim(
        'run', 'mmaib', 'train', source / 'configs/sample/digits' / config,
        '--work-dir', 'work', '--no-validate', '--cfg-options',
        'train_cfg.max_iters=2',
    )  # fmt: skip
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()
