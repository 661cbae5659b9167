"""The tables of docs/results are what the tools write of the records."""

import re
import runpy
import shlex
import sys
from fnmatch import fnmatch

import pytest
from support import REPOSITORY, SAMPLE

from mmaib.visualization.work_dirs import read_records

PAGES = '\n'.join(
    path.read_text()
    for path in sorted((REPOSITORY / 'docs' / 'results').glob('*.md'))
)
COMMANDS = re.findall(
    r'^    python (tools/experiments/\S+\.py .*--report-only.*)$',
    PAGES,
    re.M,
)


def test_every_set_of_records_is_named_on_a_page():
    docs = REPOSITORY / 'docs'
    pages = '\n'.join(page.read_text() for page in docs.rglob('*.md'))
    named = {*re.findall(r'#([\w.*-]+)|`([\w.-]+)`', pages)}
    named = {name for pair in named for name in pair if name}
    sets = {
        record.get('set', '')
        for path in (docs / 'results').glob('*.jsonl')
        for record in read_records(path)
    }
    assert len(sets) > 60
    assert len(COMMANDS) >= 10
    unnamed = [s for s in sets - {''} if not any(fnmatch(s, n) for n in named)]
    assert not unnamed


@pytest.mark.parametrize(
    'command',
    COMMANDS,
    ids=[re.sub(r'.*docs/results/(\S+)\.jsonl.*', r'\1', c) for c in COMMANDS],
)
def test_a_table_is_written_from_its_records(
    command, studies, tmp_path, monkeypatch, capsys
):
    tool, *words = shlex.split(command)
    words[words.index('--out') + 1] = str(tmp_path)
    tool = REPOSITORY / tool
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, 'argv', [str(tool), *words])
    runpy.run_path(str(tool), run_name='__main__')
    tables = re.findall(r'(?:^\|.*\n)+', capsys.readouterr().out, re.M)
    assert tables
    for table in tables:
        # the text around a table may say its seeds
        without = re.sub(r'^(\|[^|]*)\|[^|]*', r'\1', table, flags=re.M)
        assert table in PAGES or without in PAGES


def test_conclusions_have_the_figures_of_the_tables():
    page = (REPOSITORY / 'docs' / 'results.md').read_text()
    number = r'[-+]?\d+\.\d+'
    spreads = rf'{number} (?:± {number}|\[{number}, {number}\](?: \*)?)'
    figures = re.findall(spreads, page)
    assert len(figures) > 80
    assert [figure for figure in figures if figure not in PAGES] == []
    assert len(page.splitlines()) <= 250


def test_records_have_the_names_of_today():
    """Of configs and metrics that have other ones since."""
    records = [
        record
        for path in (REPOSITORY / 'docs' / 'results').glob('*.jsonl')
        for record in read_records(path)
    ]
    assert len(records) >= 448
    made = {  # by `mmaib readout`
        'readout-vgg',
        'readout-rescaled-vgg',
        'readout_faster-rcnn_lite0_fpn_12e_bccd-256',
        'readout_upernet_lite0_1xb4-500_camvid-320x240',
        # by plug_ins.py: of others' attentions, and all of a classifier
        *('trees', 'camvid', 'peers', 'base', 'readout', 'gate'),
        *('aib', 'aib-qt', 'aib-qt-literal'),
    }
    configs = {record.get('config') for record in records} - made - {None}
    assert configs <= {path.stem for path in SAMPLE.rglob('*.py')}
    names = {name for record in records for name in record['metrics']}
    assert {'attention/iou', 'ablation/mirror/mIoU'} <= names
    assert not any('causal' in name or 'fitting' in name for name in names)


def test_the_page_of_explanations_has_its_table(studies, monkeypatch, capsys):
    tool = studies / 'explanations.py'
    records = REPOSITORY / 'docs' / 'results' / 'explanations'
    path = str(records / 'detections.jsonl')
    monkeypatch.setattr(sys, 'argv', [str(tool), '--table', path])
    runpy.run_path(str(tool), run_name='__main__')
    lines = capsys.readouterr().out.splitlines()
    page = records.with_suffix('.md').read_text()
    rows = [line for line in lines if line.startswith(('|', 'Rank'))]
    assert len(rows) > 50
    assert all(row in page for row in rows)
