"""How the demo ends, without its training."""

import importlib.util
import json
import os
import re

import mmcv
import numpy as np
import pytest
from support import REPOSITORY
from test_report import SCORES, write_pictures, write_run


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / 'tools'))
    path = REPOSITORY / 'tools' / 'demo.py'
    spec = importlib.util.spec_from_file_location('demo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_detector_that_finds_nothing_has_a_summary(demo):
    name = 'coco/bbox_mAP'
    text = demo.summary(
        demo.DEMOS['detection'], 'readout', [], {}, {},
        {'attention/auc': 0.5}, {'step': 1.0},
    )  # fmt: skip
    assert f'| {name} | 0.000 |' in text
    assert f'| {name} of the base model, without the gate | 0.000 |' in text


def test_other_runs_are_counted_once(demo, monkeypatch, tmp_path):
    record = dict(config='a', options=[], metrics=dict(x=1.0))
    other = dict(record, metrics=dict(x=2.0))
    lines = [
        record, dict(record, set='again'), other, dict(record, metrics=None),
        dict(config='a', metrics=dict(x=3.0)), dict(name='b'),
    ]  # fmt: skip
    (tmp_path / 'docs' / 'results').mkdir(parents=True)
    (tmp_path / 'docs' / 'results' / 'runs.jsonl').write_text(
        ''.join(f'{json.dumps(line)}\n' for line in lines)
    )
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    assert demo.kept_runs('a.py') == [dict(x=1.0), dict(x=2.0)]


def test_the_summary_says_where_a_run_falls_among_others(demo):
    metric = 'coco/bbox_mAP'
    kept = demo.kept_runs(demo.DEMOS['detection'].readout)
    drops = [run[metric] - run[f'ablation/mirror/{metric}'] for run in kept]
    assert len(drops) >= 2
    drop = (min(drops) + max(drops)) / 2
    found = {metric: 0.9, f'ablation/mirror/{metric}': 0.9 - drop}
    text = demo.summary(
        demo.DEMOS['detection'], 'readout', [], {}, {}, found, {metric: 0.0}
    )
    row = rf'\| {metric} \| 0.900 \| [\d. to]+: above \({len(kept)} runs'
    assert re.search(row, text)
    row = rf'{metric} lost by mirror \| {drop:.3f} \| .*: within'
    assert re.search(row, text)
    four, nan = [0.2] * 4, float('nan')
    assert demo.beside(0.1, four) == demo.beside(0.1, [*four, nan]) == '4 runs'
    assert demo.beside(0.1, [0.1, *four]).endswith(': within (5 runs)')
    assert demo.beside(0.1, [0.3, *four]).endswith(': below (5 runs)')


@pytest.mark.parametrize('variant', ['readout', 'aib-qt', 'baseline'])
def test_the_demo_ends_with_a_report(
    demo, tmp_path, monkeypatch, capsys, variant
):
    out = tmp_path / 'demo'
    ran = []
    metrics = dict.fromkeys(demo.DEMOS['detection'].metrics, 0.3)

    def run(commands, tool, *args, log):
        """The tools' files, and the report for real."""
        tool = ' '.join(map(str, (tool, *args[:2])))
        ran.append(tool.removeprefix('-m '))
        tool = ran[-1]
        if tool == 'mmaib train':
            work_dir = args[4]
            maps = work_dir == out and variant != 'baseline'
            name = 'aib' if maps else 'plain'
            write_run(work_dir, 1, 0.5, name, maps, cut='')
            (log,) = work_dir.glob('*/vis_data/scalars.json')
            log.write_text(f'{log.read_text()}\n{json.dumps(metrics)}')
            (work_dir / 'last_checkpoint').write_text('/elsewhere/epoch_6.pth')
            (work_dir / 'epoch_6.pth').touch()
        elif tool == 'mmaib test':
            found = out / 'evaluation' / '20260101_000000'
            found.mkdir(parents=True)
            (found / 'test.json').write_text(json.dumps(metrics))
        elif tool == 'mmaib explain':
            words = [*map(str, args)]
            explained.append(args[3].name)
            folder = tmp_path / words[words.index('--out') + 1]
            folder.mkdir()  # it refuses one that is there
            first = dict(image=str(data / '03.png'), box=[2, 2, 6, 6])
            (folder / 'explained.json').write_text(
                json.dumps(dict(explanations=[first]))
            )
            mmcv.imwrite(np.full((8, 8, 3), 90), str(folder / '03.0.png'))
        elif tool.startswith(demo.REFEREE):
            if '--table' in args:
                log.write_text('| method | insertion - deletion |')
        elif tool == 'mmaib visualize':
            write_pictures(out, SCORES)
        elif tool == 'mmaib report':
            return really_run(commands, '-m', *args, log=log)
        return 1.0

    explained = []
    data = tmp_path / 'data' / 'trees' / 'test'
    data.mkdir(parents=True)
    for number in range(8):
        mmcv.imwrite(np.zeros((8, 8, 3)), str(data / f'{number:02}.png'))
    really_run = demo.run
    monkeypatch.setattr(demo, 'run', run)
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    monkeypatch.setenv(
        'PYTHONPATH', f'{REPOSITORY}:{os.environ.get("PYTHONPATH", "")}'
    )
    monkeypatch.setattr(
        'sys.argv', ['demo.py', '--variant', variant, '--out', str(out)]
    )
    demo.main()
    assert ran[-1] == 'mmaib report'
    assert (
        f'open in a browser: {out / "report.html"}' in capsys.readouterr()[0]
    )
    page = (out / 'report.html').read_text()
    assert f'<title>Demo: {variant}</title>' in page
    # the readout's base model too
    assert page.count('data-group=') == (2 if variant == 'readout' else 1)
    assert page.count('<figure ') == (0 if variant == 'baseline' else 3)
    summary = (out / 'summary.md').read_text()
    assert 'mmaib report' in summary
    plain = variant in ('readout', 'baseline')
    # by the first checkpoint, and again by the last
    assert explained == (['first.pth', 'epoch_6.pth'] if plain else [])
    assert not (out / 'first.pth').exists()
    assert ('| method |' in summary) == plain
    if plain:
        left, right = np.hsplit(mmcv.imread(out / 'prediction.png'), 2)
        assert left[2:7, 2:7].any()  # the box
        assert (right == 90).all()
