import pytest
from support import REPOSITORY, table_cells


def read_rows(out):
    """The cells of each row of the tables, by the row's name."""
    cells = table_cells(out.read_text())
    return {name: values for name, *values in cells}


@pytest.mark.slow
def test_benchmark_of_detection(run, tmp_path):
    """R50 itself, on a small image."""
    out = tmp_path / 'benchmark.md'
    run(
        REPOSITORY / 'tools' / 'benchmark.py', '--size', 64, 96,
        '--rounds', 1, '--only', 'detector', '--out', out,
    )  # fmt: skip
    rows = read_rows(out)
    macs = {
        name: float(rows[name][2])
        for name in (
            'base model',
            'ours, mean',
            'ours, L_a = 1',
            'ours, L_a = 4',
        )
    }
    assert float(rows['base model'][0]) == 1
    assert float(rows['base model, training step'][0]) == 1
    # Four draws repeat the RoI head, and nothing before it.
    head = (macs['ours, L_a = 4'] - macs['ours, L_a = 1']) / 3
    assert 0 < head < macs['base model']
    assert macs['base model'] < macs['ours, mean'] < macs['ours, L_a = 4']
    assert 'gate, training step' in rows
    gate = float(rows['gate, mean'][2])  # its map has too few MACs to see
    assert macs['base model'] <= gate <= macs['ours, mean']
    kept = float(rows['ours, L_a = 4, 100 RoIs kept'][2])
    assert macs['ours, mean'] < kept < macs['ours, L_a = 4']
    for name in ("mmcv's ContextBlock", "CBAM's spatial half", 'SE'):
        assert float(rows[name][2]) > 0.9 * macs['base model']
        assert f'{name}, training step' in rows


def test_benchmark_writes_its_tables(run, tmp_path):
    out = tmp_path / 'benchmark.md'
    run(
        REPOSITORY / 'tools' / 'benchmark.py', '--size', 64, 96,
        '--rounds', 1, '--only', 'growth', 'anchors', '--out', out,
    )  # fmt: skip
    rows = read_rows(out)
    assert 'Q = 50' in rows
    at = rows['RoIAlign and box head, L_a = 4, over RoIs'][0]
    assert at == '64, 128, 256, 512'


@pytest.mark.slow
def test_benchmark_of_segmentation(run, tmp_path):
    """BEiT-base itself, on a small image."""
    out = tmp_path / 'benchmark.md'
    run(
        REPOSITORY / 'tools' / 'benchmark.py', '--seg-size', 64, 64,
        '--rounds', 1, '--only', 'segmentor', '--out', out,
    )  # fmt: skip
    rows = read_rows(out)
    macs = {
        name: float(cells[2])
        for name, cells in rows.items()
        if cells[0].replace('.', '').isdigit()
    }
    assert macs['ours, mean'] < 1.01 * macs['base model']
    # the std's 3x3 convolution is as large as fpn_bottleneck
    bottleneck = 3072 * 768 * 9 * 16 * 16 / 1e9
    paper = macs['ours, L_a = 1, std 3x3'] - macs['ours, mean']
    assert abs(paper - bottleneck) < 0.01 * bottleneck
    assert macs['ours, L_a = 1, std 1x1'] < 1.03 * macs['base model']
    for form in ('std 3x3', 'std 1x1'):
        one = macs[f'ours, L_a = 1, {form}']
        assert one < macs[f'ours, L_a = 2, {form}'] < 2 * one


@pytest.mark.parametrize(
    'tool', ['benchmark.py', 'experiments/interpretability.py']
)
def test_a_device_that_is_not_there(run, tool):
    out = run(REPOSITORY / 'tools' / tool, '--device', 'cuda:99', check=False)
    assert out.returncode == 2
    assert "argument --device: 'cuda:99': " in out


@pytest.mark.slow
def test_what_uncertainty_costs(run, tmp_path):
    out = tmp_path / 'benchmark.md'
    run(
        REPOSITORY / 'tools' / 'benchmark.py', '--size', 96, 128,
        '--seg-size', 64, 64, '--rounds', 1, '--only', 'uncertainty',
        '--out', out,
    )  # fmt: skip
    rows = read_rows(out)
    for model in ('detector', 'segmentor'):
        assert float(rows[f'{model}, mean'][0]) == 1
        for count in (4, 8, 16):
            for kind in ('averaged', 'with uncertainty'):
                assert f'{model}, L_z = {count}, {kind}' in rows
