"""The `mmaib` command: help at once, refusals on one line, exit codes."""

import platform
from pathlib import Path

import pytest
from support import new_python

from mmaib.cli.main import main
from mmaib.cli.parser import COMMANDS


def test_help_imports_neither_torch_nor_mmengine():
    code = (
        'import sys; from mmaib.cli.main import main\n'
        'for name in sys.argv[1:]:\n'
        '    try:\n'
        "        main([name, '--help'])\n"
        '    except SystemExit as end:\n'
        '        assert end.code == 0\n'
        "assert not {'torch', 'mmengine', 'numpy'} & {*sys.modules}"
    )
    done = new_python(code, *COMMANDS)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f'usage: mmaib {name}' in done.stdout


def test_usage_and_unknown_commands(capsys):
    assert main(['--help']) == 0
    assert all(f'  {name} ' in capsys.readouterr().out for name in ['wrap'])
    assert main([]) == 2
    assert main(['explode']) == 2
    assert (
        "no command 'explode'; there are doctor, " in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['train', 'nowhere.py'], 'mmaib train: nowhere.py: no such file. '),
        (
            ['test', 'a.py', 'b.pth'],
            'mmaib test: a.py: no such file. Give the path',
        ),
        (
            ['wrap', 'a.py', '--out', 'b.txt'],
            'mmaib wrap: --out must be a .py file, got b.txt\n',
        ),
        (
            ['readout', 'a.py', 'b.pth', '--out', 'c'],
            'mmaib readout: checkpoint: no file b.pth\n',
        ),
        (
            ['report', 'nowhere'],
            'mmaib report: nowhere: no run with a log',
        ),
        (['report', 'notes'], 'mmaib report: notes: not lines of JSON ('),
    ],
)
def test_a_refusal_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('notes').write_text('of something else\n')
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count('\n') == 1


def test_an_error_that_is_not_mmaibs_keeps_its_traceback(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.py').write_text('lr = 1 / 0\n')
    with pytest.raises(ZeroDivisionError):
        main(['train', 'broken.py'])
    (tmp_path / 'wrong.py').write_text("raise ValueError('of the config')\n")
    with pytest.raises(ValueError, match='of the config'):
        main(['train', 'wrong.py'])


@pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='another allocator'
)
def test_a_command_uses_the_memory_of_freed_tensors_again():
    code = (
        'import resource, torch\n'
        'from mmaib.cli.main import main\n'
        'main(["wrap"])\n'
        'for _ in range(2):\n'
        '    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        '    for _ in range(8):\n'
        '        torch.zeros(2**24)\n'  # 64 MiB, in pages of 4 KiB or more
        'now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'print("faults", now - before)'
    )
    done = new_python(code)
    # eight new tensors would be 131,072, or 256 of huge pages
    assert int(done.stdout.split('faults')[1]) < 100, done.stderr


def test_somebodys_files_are_left_alone(tmp_path, capsys):
    file = tmp_path / 'photos' / 'mine.png'
    file.parent.mkdir()
    file.write_text('mine')
    for words, message in (
        (['visualize', 'a.py', 'a.pth', '--out', file.parent], 'not empty'),
        (['visualize', 'a.py', 'a.pth', '--out', file], 'name a folder'),
        (['wrap', 'a.py', '--out', file / 'b.py'], 'mine.png is a file'),
        (['train', 'a.py', '--work-dir', file], 'a file, name a folder'),
        (['report', tmp_path, '--out', file.parent], 'name a file'),
        (['report', tmp_path, '--out', file], 'no page of a report'),
    ):
        assert main([*map(str, words)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f'mmaib {words[0]}: --')
        assert message in said
        assert [*file.parent.iterdir()] == [file]
        assert file.read_text() == 'mine'


def test_a_folder_that_cannot_be_written_to(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('os.access', lambda path, mode: path != tmp_path)
    for out in (tmp_path, tmp_path / 'new' / 'out'):
        words = 'readout', 'a.py', 'a.pth', '--out', str(out)
        assert main(words) == 2
        assert f'{tmp_path} cannot be written to' in capsys.readouterr().err
