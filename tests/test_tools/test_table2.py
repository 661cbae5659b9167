import json
import sys
from contextlib import suppress

import pytest
from mmengine.config import Config
from support import REPOSITORY
from support import classification as cls

TABLE2 = REPOSITORY / 'tools' / 'experiments' / 'table2.py'


@pytest.fixture
def table2(monkeypatch):
    monkeypatch.syspath_prepend(str(TABLE2.parent))
    import table2

    yield table2
    for name in ('table2', 'study'):
        sys.modules.pop(name, None)


def write_log(work_dir, accuracy):
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = [
        {'loss': 2.0, 'time': 1.0},
        {'accuracy/top1': 1.0, 'step': 1},
        {'accuracy/top1': accuracy, 'step': 2},
    ]
    log.write_text('\n'.join(map(json.dumps, entries)))
    (work_dir / 'finished').touch()


def cells(text):
    return [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in text.splitlines()
        if line.startswith('|')
    ]


def test_the_layout_is_the_papers_and_the_figures_the_logs(
    table2, run, tmp_path
):
    rows = {row.labels[:2]: row for row in table2.rows(['cifar10'])}
    quantized = rows['3', 'VGG-aib-qt'].arms['cifar10']
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        write_log(quantized.work_dir(tmp_path, seed), accuracy)
    run(
        TABLE2, '--out', tmp_path, '--seeds', 1, 2, '--rows', 0, 3, 6,
        '--report-only',
    )  # fmt: skip
    head, _, *lines = cells((tmp_path / 'table2.md').read_text())
    assert head[:6] == [
        'No.', 'Model', 'Backbone', 'Att. Modulation', 'Enc. Types',
        'KL Loss Eva.',
    ]  # fmt: skip
    assert [line[:2] for line in lines] == [
        ['0', 'vanilla VGG'], ['3', 'VGG-aib'], ['3', 'VGG-aib-qt'],
        ['6', 'VGG-aib'], ['6', 'VGG-aib-qt'],
    ]  # fmt: skip
    assert lines[0][6:] == ['not run', '7.77', 'not run', '30.62']
    assert lines[2][6:] == ['9.00 ± 1.41', '4.10', 'not run', '20.87']
    assert lines[4][3] == 'cat'
    assert lines[4][6] == 'not run'


def test_every_row_is_a_model_of_its_own(table2):
    """Its config and options build, and no two rows train the same."""
    seen = {}
    for row in table2.rows(table2.FULL):
        cfg = Config.fromfile(row.arms['cifar10'].config)
        for option in row.arms['cifar10'].options:
            field, value = option.split('=')
            with suppress(ValueError):
                value = float(value) if '.' in value else int(value)
            cfg.merge_from_dict({field: value})
        model = repr(cfg.model)
        assert model not in seen.values(), row
        seen[row.labels[:2]] = model
        cls.build(cls.shrink(cfg))
        assert row.arms['cifar100'].config.exists()
    assert len(seen) == 4 + 2 * 8


def test_what_the_rows_change(table2):
    options = {
        row.labels[0]: row.arms['cifar10'].options
        for row in table2.rows(['cifar10'])
    }
    for line in ('0', '1', '2', '3', 'gap', 'dvib'):
        assert options[line] == []
    prefix = 'model.neck.bottleneck.modulation.mode='
    assert options['4'] == [f'{prefix}scale']
    assert options['5'] == [f'{prefix}bias']
    assert options['6'] == [
        f'{prefix}concat',
        'model.neck.neck.in_channels=512',
    ]
    adversarial = 'model.head.latent.critic.saturating=True'
    assert options['7'] == [adversarial]
    noise = [
        'model.head.latent.type=mmaib.AdditiveNoiseEncoder',
        'model.head.latent.noise_std=0.0',
    ]
    prefix = 'model.neck.bottleneck.noise.mode='
    assert options['8'] == [adversarial, f'{prefix}additive', *noise]
    assert options['9'] == [
        adversarial,
        'model.neck.neck.in_channels=512',
        f'{prefix}propagated',
        *noise,
    ]


def test_the_rows_of_the_subset(table2):
    """Of an eighth of the channels, which line 6 doubles."""
    rows = {
        row.labels[:2]: row.arms[table2.SUBSET]
        for row in table2.rows([table2.SUBSET])
    }
    for name in (('0', 'vanilla VGG'), ('dvib', 'VGG-DVIB'),
                 ('3', 'VGG-aib'), ('3', 'VGG-aib-qt')):  # fmt: skip
        assert rows[name].config.is_file()
    assert rows['6', 'VGG-aib'].options[1].endswith('in_channels=64')


def test_a_row_without_a_config_is_refused(run, tmp_path):
    out = run(
        TABLE2, '--out', tmp_path, '--rows', 1, '--data', 'cifar10-subset',
        check=False,
    )  # fmt: skip
    assert out.returncode
    assert 'vanilla WRN has no config for cifar10-subset' in out


@pytest.mark.parametrize(
    ('options', 'match'),
    [(['--jobs', 0], '--jobs must be'), (['--seeds', 1, 1], 'must differ')],
)
def test_runs_that_would_meet_are_refused(run, tmp_path, options, match):
    out = run(TABLE2, '--out', tmp_path, *options, check=False)
    assert out.returncode == 2
    assert match in out
