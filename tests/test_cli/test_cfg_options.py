"""`--cfg-options` with paths that MMEngine takes apart."""

import argparse
from pathlib import Path

import pytest
from mmengine.config import DictAction
from support import REPOSITORY

from mmaib.cli.cfg_options import options_of
from mmaib.cli.parser import parser_of

NAMES = ['a,b', 'a b', 'a, b', '(a', "it's", '[1,2]', 'x=1,2']


def parsed_by_mmengine(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('below', ['', 'there.pth', 'not/yet there.pth'])
def test_a_path_stays_a_path(name, below, tmp_path, monkeypatch):
    """Relative to here, too, and with others before and after it."""
    (tmp_path / name).mkdir()
    (tmp_path / name / 'there.pth').write_text('')
    monkeypatch.chdir(tmp_path)
    for path in (Path(name) / below, tmp_path / name / below):
        words = ['lr=1', f'load_from={path}', 'size=1,2']
        expected = dict(lr=1, load_from=str(path), size=[1, 2])
        assert options_of(words) == expected
        line = ['config.py', '--cfg-options', *words]
        args = parser_of('train').parse_args(line)
        assert options_of(args.cfg_options) == expected
        assert options_of([*words, 'load_from=None'])['load_from'] is None


@pytest.mark.parametrize(
    'value',
    ['1', '1.5', 'None', 'true', 'a,b', '[a,b]', '(1,2)', '[(1,2),[a,b]]',
     '"[6,8,9]"', 'data/a,b', 'data/x.json,data/y.json', ' a b ', '',
     f'[{",".join("9" * 300)}]'],
)  # fmt: skip
def test_all_else_is_as_mmengine_has_it(value, tmp_path, monkeypatch):
    for name in ('1', 'true', 'a', 'b', 'data'):
        (tmp_path / name).mkdir()
    (tmp_path / 'data' / 'x.json').write_text('')
    monkeypatch.chdir(tmp_path)
    word = f'key={value}'
    assert options_of([word]) == parsed_by_mmengine(word)


def test_a_word_without_a_value_is_named():
    with pytest.raises(ValueError, match="'load_from' must be KEY=VALUE"):
        options_of({'load_from': 'a.pth'})


def test_every_tool_takes_them():
    for path in (*REPOSITORY.glob('tools/**/*.py'),
                 *REPOSITORY.glob('mmaib/**/*.py')):  # fmt: skip
        if path.name != 'cfg_options.py':
            assert 'DictAction' not in path.read_text(), path
