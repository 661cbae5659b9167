"""The arrows of the house point down, and the core names no part."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support import REPOSITORY, new_python

import mmaib
from mmaib import layers
from mmaib.registry import MODELS

ROOT = Path(mmaib.__file__).parent
LIBRARY = {
    'detection': 'mmdet',
    'segmentation': 'mmseg',
    'classification': 'mmpretrain',
}
LIBRARIES = {*LIBRARY.values(), 'mmcv'}
# files of the root are below them all
FLOORS = (
    ('functional',),
    ('losses', 'sampling'),
    ('layers',),
    ('models',),
    ('datasets', 'evaluation'),
    ('preflight',),
    ('visualization',),
    ('explanations',),
    ('hooks',),
    ('cli',),
)
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}
CORE = (
    'layers/attentive_bottleneck.py',
    'layers/capture.py',
    'layers/map_changes.py',
    'hooks/beta_warmup_hook.py',
)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = ''
            if node.level:
                package = ['mmaib', *path.relative_to(ROOT).parts[:-1]]
                base = package[: len(package) - node.level + 1]
                prefix = '.'.join(base) + '.'
            names |= {
                f'{prefix}{node.module or ""}.{alias.name}'.strip('.')
                for alias in node.names
            }
    return names


def folder_imports(folder: str) -> set[str]:
    files = list((ROOT / folder).rglob('*.py'))
    assert files, f'{folder} is empty'
    return set().union(*map(imported_modules, files))


def test_every_folder_has_a_floor():
    packages = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert packages == FLOOR.keys()


@pytest.mark.parametrize('folder', FLOOR)
def test_no_arrow_points_up_or_sideways(folder):
    """So there is no circle of folders either."""
    found = {name.split('.')[1] for name in starting_with(
        folder_imports(folder), {'mmaib'}) if '.' in name}  # fmt: skip
    others = (found & FLOOR.keys()) - {folder}
    assert not {f for f in others if FLOOR[f] >= FLOOR[folder]}
    assert not starting_with(folder_imports(folder), {'tools'})


def test_files_of_the_root_import_no_folder():
    for path in ROOT.glob('*.py'):
        found = starting_with(imported_modules(path), {
            f'mmaib.{folder}' for folder in FLOOR})  # fmt: skip
        if path.name not in ('__init__.py', '__main__.py'):  # of the command
            assert not found, path


def test_tools_import_each_other_without_a_circle():
    files = {p.stem: p for p in (REPOSITORY / 'tools').rglob('*.py')}
    arrows = {
        name: {
            part
            for module in imported_modules(path)
            if not module.startswith('mmaib.')
            for part in module.split('.')
            if part in files and part != name
        }
        for name, path in files.items()
    }
    assert [*TopologicalSorter(arrows).static_order()]


@pytest.mark.parametrize('file', CORE)
def test_the_core_names_no_part(file):
    """A map, a modulation, a quantizer, an encoder of a user's is treated as
    mmaib's are; a config's default is a string."""
    parts = {
        name
        for name in layers.__all__
        if name in MODELS.module_dict and name != 'AttentiveBottleneck'
    }
    assert {'InformationGate', 'RectangularAttention'} < parts
    named = {
        getattr(node, field)
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        for field in ('id', 'attr', 'name')
        if isinstance(getattr(node, field, None), str)
    }
    assert not named & parts


def starting_with(names: set[str], prefixes: set[str]) -> set[str]:
    return {
        n for n in names for p in prefixes if n == p or n.startswith(p + '.')
    }


def test_functional_imports_torch_alone():
    names = folder_imports('functional')
    allowed = starting_with(
        names, {'torch', 'mmaib.functional', *sys.stdlib_module_names}
    )
    assert names == allowed


@pytest.mark.parametrize('folder', ['losses', 'sampling', 'layers'])
def test_below_the_models_no_base_library_is_imported(folder):
    assert not starting_with(folder_imports(folder), LIBRARIES)


@pytest.mark.parametrize('folder', LIBRARY)
def test_folders_of_base_libraries_do_not_import_each_other(folder):
    others = {f'mmaib.models.{o}' for o in LIBRARY.keys() - {folder}}
    others |= LIBRARIES - {'mmcv', LIBRARY[folder]}
    assert not starting_with(folder_imports(f'models/{folder}'), others)


@pytest.mark.parametrize('folder', LIBRARY)
def test_a_class_of_a_base_library_contains_no_formula(folder):
    found = starting_with(
        folder_imports(f'models/{folder}'), {'mmaib.functional'}
    )
    # where a segmentor's windows lie
    assert found == starting_with(found, {'mmaib.functional.sliding'})


def test_importing_mmaib_loads_neither_torch_nor_a_base_library():
    code = (
        'import sys, mmaib; '
        'print(sorted({"torch", "mmengine", "mmdet"} & set(sys.modules)))'
    )
    out = new_python(code)
    out.check_returncode()
    assert out.stdout.strip() == '[]'


def test_only_compat_knows_distribution_names():
    known = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob('*.py')
        if 'onedl' in path.read_text().lower()
    ]
    assert known == ['compat.py']
