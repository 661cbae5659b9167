"""The arrows of the house point down: base libraries -> layers ->
functional."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmaib
from mmaib.testing import REPOSITORY

ROOT = Path(mmaib.__file__).parent
LIBRARIES = {'mmdet', 'mmseg', 'mmpretrain', 'mmcv'}
STANDARD = {'torch', '__future__', 'collections', 'typing', 'mmaib.functional'}
LIBRARY_FOLDERS = {'detection', 'segmentation', 'classification'}


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file imports, wherever in the file."""
    package = ['mmaib', *path.relative_to(ROOT).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            prefix = '.'.join(base) + '.' if node.level else ''
            names |= {
                f'{prefix}{node.module or ""}.{alias.name}'.strip('.')
                for alias in node.names
            }
    return names


def folder_imports(folder: str) -> set[str]:
    files = list((ROOT / folder).rglob('*.py'))
    assert files, f'{folder} is empty'
    return set().union(*map(imported_modules, files))


def starting_with(names: set[str], prefixes: set[str]) -> set[str]:
    return {
        n for n in names for p in prefixes if n == p or n.startswith(p + '.')
    }


def test_functional_imports_torch_alone():
    names = folder_imports('functional')
    allowed = starting_with(names, STANDARD)
    assert names == allowed


def test_layers_never_import_a_base_library():
    names = folder_imports('layers')
    ours = {f'mmaib.models.{folder}' for folder in LIBRARY_FOLDERS}
    assert not starting_with(names, LIBRARIES | ours)


@pytest.mark.parametrize(
    'folder',
    sorted(f for f in LIBRARY_FOLDERS if (ROOT / 'models' / f).is_dir()),
)
def test_library_folders_do_not_import_each_other(folder):
    others = {f'mmaib.models.{other}' for other in LIBRARY_FOLDERS - {folder}}
    assert not starting_with(folder_imports(f'models/{folder}'), others)


@pytest.mark.parametrize('folder', sorted(LIBRARY_FOLDERS))
def test_a_library_class_contains_no_formula(folder):
    names = folder_imports(f'models/{folder}')
    windows = starting_with(names, {'mmaib.functional.sliding'})
    assert starting_with(names, {'mmaib.functional'}) == windows


def test_importing_mmaib_loads_neither_torch_nor_a_base_library():
    code = (
        'import sys, mmaib; '
        'print(sorted({"torch", "mmengine", "mmdet"} & set(sys.modules)))'
    )
    out = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert out.stdout.strip() == '[]'


def test_only_compat_knows_distribution_names():
    known = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob('*.py')
        if 'onedl' in path.read_text().lower()
    ]
    assert known == ['compat.py']
