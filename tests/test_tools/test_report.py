"""The report's page: what it says against the logs by hand, and how it acts
in a browser."""

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image
from support import REPOSITORY
from support.browser import needs_browser, visit

from mmaib.visualization import charts, gallery, report
from mmaib.visualization import work_dirs as runs
from mmaib.visualization.tables import values

sys.path.insert(0, str(REPOSITORY / 'tools' / 'experiments'))
from records import keep_record

AP = 'coco/bbox_mAP'


def write_run(work_dir, seed, ap, name='aib', maps=True, cut='\n{"loss": 1.'):
    """A run's work dir, as MMEngine leaves it, with a line cut off."""
    steps = (10, 20, 30)
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    lines = []
    for step in steps:
        entry = dict(loss=2.0 / step, loss_cls=1.0, epoch=1, iter=step)
        entry.update(time=1.0, step=step)
        if maps:
            entry.update(
                loss_kl_cls=0.5, anchors_used=step / 10,
                info_bits_per_image=1e6 / step,
            )  # fmt: skip
        lines.append(entry)
        found = {AP: ap - 0.01 * (steps[-1] - step), 'step': 1}
        if maps:
            found.update({'attention/auc': 0.8, 'attention/area': 0.3})
            found.update(
                {'attention/auc_centre': 0.625, 'attention/energy': 0.4}
            )
        lines.append(found)
    if maps:
        lines.append({f'ablation/mirror/{AP}': ap - 0.04, 'step': steps[-1]})
    log.write_text('\n'.join(map(json.dumps, lines)) + cut)
    neck = dict(type='mmaib.AIBNeck', bottleneck={}) if maps else 'FPN'
    (work_dir / f'{name}.py').write_text(
        f'model = dict(type="A", neck={neck!r})\n'
        f'randomness = dict(seed={seed})\n'
        'train_cfg = dict(max_epochs=1)\n'
    )
    return work_dir


def write_pictures(work_dir, scores):
    """What attention.py leaves; pictures by their numbers."""
    folder = work_dir / 'attention'
    folder.mkdir()
    for number, name in enumerate(scores):
        pixels = np.full((24, 32, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f'{name}.png')
        Image.fromarray(pixels).save(folder / f'{name}.overlay.jpg')
    (folder / 'scores.json').write_text(json.dumps(dict(images=scores)))


SCORES = {
    'middle': {'base/F1': 0.5, 'auc': 0.1, 'contrast': 0.3},
    'good': {'base/F1': 1.0, 'auc': 0.9, 'contrast': 0.1},
    'bad': {'base/F1': 0.0, 'auc': 0.5, 'contrast': 0.2},
}


@pytest.fixture
def study(tmp_path):
    for seed, ap in ((1, 0.5), (2, 0.54)):
        plain = tmp_path / 'plain' / f'seed_{seed}'
        write_run(plain, seed, ap, 'plain', maps=False)
        work_dir = write_run(
            tmp_path / 'aib' / f'seed_{seed}', seed, ap + 0.01
        )
    write_pictures(work_dir, SCORES)
    return tmp_path


class Page(HTMLParser):
    """Its tables, and every address that it names."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.addresses, self.ids = [], [], []
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs['id']] if 'id' in attrs else []
        self.addresses += [
            v for k, v in attrs.items() if k in ('src', 'href', 'data-large')
        ]
        if tag == 'table':
            self.tables.append([])
        if tag == 'tr':
            self.tables[-1].append([])
        if tag in ('td', 'th'):
            self.cell = ''

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.tables[-1][-1].append(self.cell.strip())
            self.cell = None


def test_the_tables_of_a_study(study):
    page = Page(report.render([study], 48))
    metrics, _, attention, fields = page.tables
    assert metrics == [
        ['config', 'seeds', AP, 'paired difference', 'state'],
        ['plain', '1, 2', '0.5200 ± 0.0283', '-', metrics[1][-1]],
        ['aib', '1, 2', '0.5300 ± 0.0283', '0.0100 ± 0.0000',
         metrics[2][-1]],
    ]  # fmt: skip
    assert metrics[1][-1].startswith('epoch 1 of 1, last written')
    assert attention == [
        [
            'config',
            'seeds',
            'lost by mirror',
            'AUC',
            'AUC of the centre',
            'energy',
            'area',
        ],
        ['plain', '1, 2', '-', *['no map'] * 4],
        [
            'aib',
            '1, 2',
            '0.0400 ± 0.0000',
            '0.800 ± 0.000',
            '0.625 ± 0.000',
            '0.400 ± 0.000',
            '0.300 ± 0.000',
        ],
        ['a uniform map', '', '0.0000', '0.500', '-', '0.300', '0.300'],
    ]
    assert fields == [
        ['field', 'plain', 'aib'],
        ['model.neck', "'FPN'", "{'type': 'mmaib.AIBNeck', 'bottleneck': {}}"],
    ]


def test_nothing_is_fetched_and_links_lead_somewhere(study):
    page = Page(report.render([study], 48))
    assert len(page.addresses) > 6
    for address in page.addresses:
        if address.startswith('#'):
            assert address[1:] in page.ids
        else:
            assert address.startswith('data:')


def test_a_run_in_progress(tmp_path):
    work_dir = write_run(tmp_path / 'run', 1, 0.5)
    run = runs.read_run(work_dir)
    # the line that was cut is left out
    assert run.training['anchors_used'] == {10: 1.0, 20: 2.0, 30: 3.0}
    assert run.evaluation[AP] == pytest.approx({10: 0.3, 20: 0.4, 30: 0.5})
    assert run.metrics[f'ablation/mirror/{AP}'] == pytest.approx(0.46)
    assert run.state.startswith('epoch 1 of 1, last written')
    (work_dir / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    (work_dir / 'epoch_1.pth').touch()
    assert runs.read_run(work_dir).state == 'finished, epoch 1 of 1'


def test_a_run_by_a_path_of_one_name(tmp_path, monkeypatch):
    write_run(tmp_path / 'run', 1, 0.5)
    monkeypatch.chdir(tmp_path)
    (group,) = runs.grouped(runs.find_runs([Path('run')]))
    assert [run.seed for run in group.runs] == [1]


def test_a_resumed_run_counts_a_step_once(tmp_path):
    work_dir = write_run(tmp_path / 'run', 1, 0.5)
    log = work_dir / '20260102_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(dict(loss=9.0, iter=20, step=20)))
    assert runs.read_run(work_dir).training['loss'][20] == 9.0


def test_a_test_inside_a_run_is_the_run_s(tmp_path):
    work_dir = write_run(tmp_path / 'run', 1, 0.5)
    log = work_dir / 'evaluation' / '20260103_000000' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text(
        json.dumps({f'ablation/flatten/{AP}': 0.2})
    )
    (log.parent / '20260103_000000.json').write_text(json.dumps({AP: 0.7}))
    (run,) = runs.find_runs([tmp_path])
    assert run.metrics[AP] == 0.7
    assert run.metrics[f'ablation/flatten/{AP}'] == 0.2


def test_calibration_has_a_table(tmp_path):
    plain = write_run(tmp_path / 'plain', 1, 0.5, 'plain', maps=False)
    assert 'id="calibration"' not in report.render([plain], 4)
    test = tmp_path / 'plain' / 'test' / '20260102_000000' / 'vis_data'
    test.mkdir(parents=True)
    figures = {'calibration/ece': 0.0625, 'calibration/aurc': 0.25}
    (test / 'scalars.json').write_text(json.dumps(figures))
    write_run(tmp_path / 'aib', 1, 0.5)
    head, *rows = report.calibration_table(
        report.grouped(report.find_runs([tmp_path]))
    )
    assert head == ['config', 'seeds', 'ece', 'aurc']
    assert [*rows[0], *rows[1][2:]] == [
        'plain', '1', '0.0625', '0.2500', '-', '-',
    ]  # fmt: skip


def test_a_training_inside_a_run_s_folder_is_a_run(tmp_path):
    """As the demo keeps the base model of its readout."""
    write_run(tmp_path / 'demo', 1, 0.5)
    write_run(tmp_path / 'demo' / 'base', 1, 0.6, 'plain', maps=False)
    groups = runs.grouped(runs.find_runs([tmp_path / 'demo']))
    assert [(g.label, values(g.metrics, AP)) for g in groups] == [
        ('plain', [0.6]),
        ('aib', [0.5]),
    ]


def test_records_of_our_results():
    path = REPOSITORY / 'docs' / 'results' / 'runs.jsonl'
    name = 'faster-rcnn_lite0_fpn_12e_bccd-256'
    groups = {g.label: g for g in runs.grouped(runs.find_runs([path]))}
    found = groups[f'bccd: {name}'].metrics
    expected = [
        record['metrics'][AP]
        for record in map(json.loads, path.read_text().splitlines())
        if (record['set'], record['name']) == ('bccd', name)
    ]
    assert mean(values(found, AP)) == pytest.approx(mean(expected))
    assert len(expected) == 3


def test_what_is_broken_in_a_run_is_left_out(tmp_path, capsys):
    write_run(tmp_path, 0, 0.3)
    whole = runs.read_run(tmp_path)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    log.write_bytes(log.read_bytes() + b'\n\xff\x00\n12\n')
    for path in (*tmp_path.glob('*.py'), *tmp_path.glob('*/*/config.py')):
        path.write_text('model = dict(')
    found = runs.read_run(tmp_path)
    assert found.config is None
    assert (found.training, found.metrics) == (whole.training, whole.metrics)
    assert 'cannot be read: SyntaxError' in capsys.readouterr().out
    records = tmp_path / 'a#1.jsonl'
    record = dict(name='a', seed=0, metrics=dict(x=1.0))
    lines = [json.dumps(r) for r in ({**record, 'metrics': None}, record)]
    records.write_text('\n'.join(lines))
    assert [run.metrics for run in runs.find_runs([records])] == [dict(x=1.0)]


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no run with a log'):
        report.render([tmp_path], 48)


def test_the_worst_images_come_first_and_are_what_fits(study):
    groups = runs.grouped(runs.find_runs([study]))
    cards, left_out = gallery.pictures(groups, per_run=2)
    assert [card.name for card in cards] == ['bad', 'middle']
    assert left_out == 1
    cards, left_out = gallery.pictures(groups, 48, megabytes=1e-6)
    assert [card.name for card in cards] == ['bad']


def test_a_run_in_progress_shows_what_its_hook_drew(tmp_path):
    work_dir = write_run(tmp_path / 'run', 1, 0.5)
    folder = next(work_dir.glob('*/vis_data')) / 'vis_image'
    folder.mkdir()
    for step, level in ((10, 50), (200, 100)):
        pixels = np.full((24, 32, 3), level, np.uint8)
        path = folder / f'attention_tile_3_{step}.png'
        Image.fromarray(pixels).save(path)
        os.utime(path, (step, step))
    (run,) = runs.find_runs([tmp_path])
    assert run.snapshots == {'tile_3': folder / 'attention_tile_3_200.png'}
    cards, _ = gallery.pictures(runs.grouped([run]), 48)
    assert [card.name for card in cards] == ['tile_3']
    assert 'data-name="tile_3"' in report.render([tmp_path], 48)
    write_pictures(work_dir, SCORES)
    cards, _ = gallery.pictures(runs.grouped(runs.find_runs([tmp_path])), 48)
    assert 'tile_3' not in {card.name for card in cards}


def test_without_pictures_the_page_tells_how_to_draw_them(tmp_path):
    write_run(tmp_path / 'run', 1, 0.5)
    page = report.render([tmp_path], 48)
    assert 'mmaib visualize CONFIG CHECKPOINT --out WORK_DIR/' in page


def test_a_chart_s_line_lies_where_the_values_are():
    line = charts.Line('run', 0, {0: 0.0, 50: 0.5, 100: 1.0})
    svg = charts.chart('loss', [line])
    drawn = svg.partition('class="line g0"')[2]
    assert drawn.startswith('><title>run: 1 at 100</title>')
    path = re.search(r'<path d="M([^"]*)"', drawn)[1]
    points = [tuple(map(float, p.split())) for p in path.split('L')]
    (left, low), (x, y), (right, high) = points
    assert (x, y) == pytest.approx(((left + right) / 2, (low + high) / 2))
    # as far as the axis says
    ticks = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([\d.]+)</text>', svg)
    at = {float(value): float(y) for y, value in ticks}
    assert at[0.0] - at[1.0] == pytest.approx(low - high, abs=0.1)
    assert 'Date' not in svg
    assert 'matplotlib.org' not in svg


def test_charts_of_hard_series():
    assert charts.chart('loss', [charts.Line('run', 0, {})]) == ''
    assert charts.chart('x', [charts.Line('r', 0, {1: float('nan')})]) == ''
    for points in ({1: 0.0}, {1: 3.0, 2: 3.0}, {1: 1e-9, 2: 1e9}):
        svg = charts.chart('x', [charts.Line('r', 0, points)])
        assert svg.count('class="line g0"') == 1
        assert 'nan' not in svg
    many = charts.thinned(dict.fromkeys(range(10_000), 2.0))
    assert len(many) <= charts.POINTS
    assert {y for _, y in many} == {2.0}


# Clicks what a reader would click, and writes down what he would then see. The
# page's `load` event waits for the picture that is opened.
VISITOR = """
const names = () => [...document.querySelectorAll('#cards figure')]
  .map((card) => card.dataset.name);
const visited = document.getElementById('viewer');
const text = () => document.getElementById('viewing').textContent;
seen.first = names();
const by = document.getElementById('sort');
by.value = 'auc'; by.dispatchEvent(new Event('change'));
seen.auc = names();
document.getElementById('order').click();
seen.highest = names();
document.querySelector('#cards button').click();
seen.open = visited.open;
seen.viewing = text();
visited.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
seen.next = text();
const image = visited.querySelector('img');
seen.size = [image.naturalWidth, image.naturalHeight];
document.getElementById('close').click();
seen.closed = !visited.open;
document.querySelector('.legend button[data-group="1"]').click();
seen.lines = [0, 1].map((group) =>
  [...document.querySelectorAll('.line.g' + group)]
    .filter((line) => line.getBoundingClientRect().width > 0).length);
"""


@needs_browser
@pytest.mark.parametrize('width', [1400, 500])
def test_in_a_browser(study, width):
    assert visit(report.render([study], 48), VISITOR, study, width) == {
        'errors': [],
        'first': ['bad', 'middle', 'good'],
        'auc': ['middle', 'bad', 'good'],
        'highest': ['good', 'bad', 'middle'],
        'open': True,
        'viewing': 'good',
        'next': 'bad',
        'size': [32, 24],
        'closed': True,
        # plain: loss, loss_cls, AP of two seeds; aib is hidden
        'lines': [6, 0],
        'wider': False,
    }


def add_to_log(work_dir, *lines):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    text = path.read_text().rpartition('\n')[0]
    path.write_text('\n'.join([text, *map(json.dumps, lines)]))


def test_an_evaluation_that_found_nothing_has_not_the_ap_before(study):
    """It is 0, in the metric and in what is lost by its map."""
    add_to_log(study / 'aib' / 'seed_2', {'time': 1.0, 'step': 40})
    metrics, everything, attention, _ = Page(report.render([study], 48)).tables
    assert metrics[2][2] == '0.2550 ± 0.3606'  # 0.51 and 0
    assert metrics[2][3] == '-0.2650 ± 0.3889'  # 0.01 and -0.54
    assert attention[2][2] == '0.0200 ± 0.0283'  # 0.04, and nothing of 0
    # where a map has no score the count says so
    assert attention[2][3] == '0.800 (1 of 2)'
    row = next(r for r in everything if r[0] == 'attention/auc')
    assert row[2] == '0.8 (1 of 2)'


def test_a_run_that_was_not_evaluated_has_no_ap(study):
    work_dir = study / 'aib' / 'seed_3'
    write_run(work_dir, 3, 0.5)
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    path.write_text(json.dumps(dict(loss=1.0, epoch=1, iter=1, time=1.0)))
    metrics = Page(report.render([study], 48)).tables[0]
    assert metrics[2][1:3] == ['1, 2, 3', '0.5300 ± 0.0283 (2 of 3)']


def write_record(path, ap, *options, config='aib', seed=1):
    record = dict(
        name=path.stem, config=config, seed=seed, options=options,
        metrics={AP: ap, 'step': 1},
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_a_record_of_other_options_is_not_the_run_beside_it(tmp_path):
    """Of the same name and seed; the run's own record is not shown twice."""
    work_dir = write_run(tmp_path / 'aib' / 'seed_1', 1, 0.5)
    options = ['beta=0.1', 'load_from=/there/plain/seed_1/a.pth']
    write_record(work_dir / 'record.json', 0.5, *options)
    moved = ['beta=0.1', 'load_from=/here/plain/seed_1/a.pth']
    write_record(tmp_path / 'records' / 'aib_b-0.1.jsonl', 0.5, *moved)
    assert len(runs.find_runs([tmp_path])) == 1
    write_record(tmp_path / 'other' / 'aib.jsonl', 0.7, 'beta=0.2')
    found = runs.find_runs([tmp_path])
    assert [run.metrics[AP] for run in found] == [0.5, 0.7]


def test_a_record_of_a_run_that_found_nothing(tmp_path):
    for seed, found in ((1, {AP: 0.5, 'step': 9}), (2, {'step': 9})):
        record = dict(seed=seed, metrics=found)
        keep_record(tmp_path / 'study.jsonl', 'plain', record)
    metrics = Page(report.render([tmp_path], 48)).tables[0]
    assert metrics[1][2] == '0.2500 ± 0.3536'


def test_json_lines_of_something_else_are_left_out(study):
    """Such as the explanations that the demo leaves beside its runs."""
    before = Page(report.render([study], 48)).tables
    lines = [dict(name='demo', seed=1, image='a.png', methods={}), [[1]], 2]
    lines += [dict(name='a', seed=[], metrics={}), dict(
        name='a', seed=1, metrics={AP: 0.5}, options=7)]  # fmt: skip
    text = '\n'.join(map(json.dumps, lines))
    (study / 'explanations.jsonl').write_text(text)
    assert Page(report.render([study], 48)).tables == before
