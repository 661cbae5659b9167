"""How the demo ends, without its training."""

import importlib.util
import json

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


@pytest.mark.parametrize('variant', ['readout', 'aib-qt', 'baseline'])
def test_the_demo_ends_with_a_report(
    demo, tmp_path, monkeypatch, capsys, variant
):
    out = tmp_path / 'demo'
    ran = []
    metrics = dict.fromkeys(demo.DEMOS['detection'].metrics, 0.3)

    def run(commands, tool, *args):
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
        elif tool == 'mmaib test':
            found = out / 'evaluation' / '20260101_000000'
            found.mkdir(parents=True)
            (found / 'test.json').write_text(json.dumps(metrics))
        elif tool == 'mmaib visualize':
            write_pictures(out, SCORES)
        elif tool == 'mmaib report':
            return really_run(commands, '-m', *args)
        return 1.0

    really_run = demo.run
    monkeypatch.setattr(demo, 'run', run)
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
    assert 'mmaib report' in (out / 'summary.md').read_text()
