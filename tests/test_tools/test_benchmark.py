from mmaib.testing import REPOSITORY


def test_benchmark_writes_its_tables(run, tmp_path):
    out = tmp_path / 'benchmark.md'
    run(
        REPOSITORY / 'tools' / 'benchmark.py', '--size', 96, 128,
        '--rounds', 1, '--out', out,
    )  # fmt: skip
    rows = {
        cells[1].strip(): cells[2:-1]
        for line in out.read_text().splitlines()
        if len(cells := line.split('|')) > 3
    }
    macs = {
        name: float(rows[name][3])
        for name in ('host', 'ours, mean', 'ours, L_a = 1', 'ours, L_a = 4')
    }
    assert float(rows['host'][0]) == 1
    assert float(rows['host, training step'][0]) == 1
    # Four draws repeat the RoI head, and nothing before it.
    head = (macs['ours, L_a = 4'] - macs['ours, L_a = 1']) / 3
    assert 0 < head < macs['host']
    assert macs['host'] < macs['ours, mean'] < macs['ours, L_a = 4']
    assert 'Q = 50' in rows
