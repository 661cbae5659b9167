import json
import sys
from types import SimpleNamespace

import pytest
from support import CONFIGS, REPOSITORY

from mmaib.cli import runs
from mmaib.visualization.work_dirs import read_records

RATE = REPOSITORY / 'tools' / 'experiments' / 'rate.py'
SAMPLE = CONFIGS / 'sample' / 'bccd'
BASE = SAMPLE / 'faster-rcnn_lite0_fpn_12e_bccd-256.py'
READOUT = SAMPLE / 'readout_faster-rcnn_lite0_fpn_4e_bccd-256.py'
AP = 'coco/bbox_mAP'
FIELD = 'model.neck.bottleneck.modulation.beta'


@pytest.fixture
def rate(monkeypatch):
    monkeypatch.syspath_prepend(str(RATE.parent))
    import rate

    yield rate
    for name in ('rate', 'study'):
        sys.modules.pop(name, None)


@pytest.fixture
def command(rate, monkeypatch):
    """Run the tool in this process with these arguments."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['rate.py', *map(str, args)])
        rate.main()

    return run


def metrics(ap, bits, auc, mirrored):
    return {
        'coco/bbox_mAP': ap,
        'attention/bits_per_image': bits,
        'attention/auc': auc,
        'attention/auc_centre': 0.625,
        'ablation/mirror/coco/bbox_mAP': mirrored,
    }


def write_log(work_dir, found):
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    lines = [{'loss': 2.0, 'time': 9.0, 'iter': 1}, {**found, 'step': 1}]
    log.write_text('\n'.join(map(json.dumps, lines)))
    (work_dir / 'finished').touch()


def write_record(records, name, seed, found):
    runs.keep_record(records, name, dict(seed=seed, metrics=found))


def rows(out):
    return [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in (out / 'rate.md').read_text().splitlines()
        if line.startswith('|')
    ]


def test_table_and_picture_are_made_of_logs_and_records(
    rate, command, tmp_path, monkeypatch
):
    out, records = tmp_path / 'out', tmp_path / 'records.jsonl'
    name = f'{READOUT.stem}_beta-0.1'
    write_log(out / name / 'seed_1', metrics(0.50, 900, 0.8, 0.44))
    write_record(records, name, 2, metrics(0.54, 1100, 0.9, 0.46))
    name = f'{READOUT.stem}_beta-0.01'
    write_log(out / name / 'seed_1', metrics(0.55, 9000, 0.7, 0.50))
    for seed, ap in ((1, 0.56), (2, 0.58)):
        found = {'coco/bbox_mAP': ap}
        write_record(records, BASE.stem, seed, found)
    figures = []
    drawn = rate.draw
    monkeypatch.setattr(
        rate, 'draw', lambda *a: figures.append(drawn(*a)) or figures[-1]
    )
    command(
        READOUT, '--out', out, '--records', records, '--seeds', 1, 2,
        '--weights', 0.1, 0.01, 1, '--baseline', BASE, '--report-only',
    )  # fmt: skip
    head, _, *body = rows(out)
    assert head == [
        'weight', 'seeds', 'coco/bbox_mAP', 'paired difference',
        'bits an image', 'AUC', 'AUC of the centre', 'lost by mirror',
    ]  # fmt: skip
    assert body == [
        ['base model', '1, 2', '0.5700 ± 0.0141', *'-----'],
        ['0.01', '1', '0.5500', '-0.0100', '9000', '0.700', '0.625',
         '0.0500'],
        ['0.1', '1, 2', '0.5200 ± 0.0283', '-0.0500 ± 0.0141',
         '1000 ± 141', '0.850 ± 0.071', '0.625 ± 0.000', '0.0700 ± 0.0141'],
        ['1', *['not run'] * 7],
    ]  # fmt: skip
    assert '`python rate.py' in (out / 'rate.md').read_text()
    assert (out / 'rate.png').stat().st_size > 5000
    ap, auc = figures[0].axes
    curve, base = [line for line in ap.lines if len(line.get_xdata()) == 2]
    assert list(curve.get_xdata()) == [9000, 1000]
    assert list(curve.get_ydata()) == pytest.approx([0.55, 0.52])
    assert list(base.get_ydata()) == pytest.approx([0.57, 0.57])
    assert ap.get_xscale() == auc.get_xscale() == 'log'
    assert [text.get_text() for text in auc.texts] == ['0.01', '0.1']


def test_options_reach_the_training(rate, command, tmp_path, monkeypatch):
    """Each weight and seed is one training, which ends with a record; the
    second time there is none."""
    commands = []

    def train(command, **_):
        if command[1:4] == ['-m', 'mmaib', 'train']:
            commands.append(command)
            work_dir = command[command.index('--work-dir') + 1]
            write_log(tmp_path / work_dir, metrics(0.5, 900, 0.8, 0.4))
            (tmp_path / work_dir / 'finished').unlink()
        return SimpleNamespace(returncode=0, stdout='')

    monkeypatch.setattr(runs.subprocess, 'run', train)
    monkeypatch.setattr(runs, 'refuse_missing_data', lambda runs: None)
    monkeypatch.chdir(tmp_path)
    args = [
        READOUT, '--out', 'out', '--records', 'records.jsonl', '--seeds', 1, 2,
        '--weights', 0.1, 1e-5, '--jobs', 1,
        '--load-from', 'bases/seed_{seed}/last.pth',
        '--cfg-options', 'train_cfg.max_epochs=1',
    ]  # fmt: skip
    command(*args)
    assert [c[4:5] + c[-4:] for c in commands] == [
        [
            str(READOUT),
            f'randomness.seed={seed}',
            'train_cfg.max_epochs=1',
            f'{FIELD}={weight}',
            f'load_from=bases/seed_{seed}/last.pth',
        ]
        for seed in (1, 2)
        for weight in ('1e-05', '0.1')
    ]
    kept = read_records(tmp_path / 'records.jsonl')
    assert [(record['name'], record['seed']) for record in kept] == [
        (f'{READOUT.stem}_beta-{weight}', seed)
        for weight in ('0.1', '1e-05')
        for seed in (1, 2)
    ]
    assert [row[1] for row in rows(tmp_path / 'out')[2:]] == ['1, 2'] * 2
    command(*args)
    assert len(commands) == 4


def test_a_seed_that_found_nothing_counts(command, tmp_path):
    """Mirrored seed 2 finds nothing; at the larger weight no seed does."""
    records = tmp_path / 'records.jsonl'
    few, many = (f'{READOUT.stem}_beta-{weight}' for weight in ('0.1', '1'))
    whole = metrics(0.5, 900, 0.8, 0.4)
    write_record(records, few, 1, whole)
    gone = f'ablation/mirror/{AP}'
    blind = {k: v for k, v in whole.items() if k != gone}
    write_record(records, few, 2, blind)
    blind = {k: v for k, v in blind.items() if k != AP}
    write_record(records, many, 1, blind)
    command(
        READOUT, '--out', tmp_path, '--records', records, '--seeds', 1, 2,
        '--weights', 0.1, 1, '--report-only',
    )  # fmt: skip
    head, _, *body = rows(tmp_path)
    one, other = (dict(zip(head, row)) for row in body)
    assert one['lost by mirror'] == '0.3000 ± 0.2828'  # 0.1 and 0.5
    assert other[AP] == '0.0000'


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--weights', 0, 1], '--weights must be > 0 and differ'),
        (['--weights', 1, 1.0], '--weights must be > 0 and differ'),
        (['--jobs', 0], '--jobs must be >= 1'),
    ],
)
def test_mistakes_are_named(command, tmp_path, capsys, args, message):
    with pytest.raises(SystemExit):
        command(READOUT, '--out', tmp_path, *args)
    assert message in capsys.readouterr().err


def test_logs_without_bits_say_what_is_missing(command, tmp_path):
    work_dir = tmp_path / f'{READOUT.stem}_beta-0.1' / 'seed_1'
    write_log(work_dir, {'coco/bbox_mAP': 0.5})
    with pytest.raises(SystemExit, match='AttentionEvalHook'):
        command(
            READOUT, '--out', tmp_path, '--weights', 0.1, '--seeds', 1,
            '--report-only',
        )  # fmt: skip
    assert rows(tmp_path)[2] == ['0.1', '1', '0.5000', *'-----']
