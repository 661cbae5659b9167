"""Run the matrix of hosts and write its tables into docs/any_model.md."""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from mmaib.testing import REPOSITORY, hosts, matrix

PAGE = REPOSITORY / 'docs' / 'any_model.md'
BEGIN, END = '<!-- tables: python tools/any_model.py -->', '<!-- end -->'


def table(names: dict) -> list[str]:
    """Lines of a table; a host that fails is a row with the reason."""
    lines = [
        f'| host | {" | ".join(matrix.COLUMNS)} |',
        '|---' * (len(matrix.COLUMNS) + 1) + '|',
    ]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = matrix.row(name, Path(folder))
            except Exception as error:
                reason = ' '.join(f'{type(error).__name__}: {error}'.split())
                row = dict.fromkeys(matrix.COLUMNS, '')
                row['attention'] = f'fails: {reason[:200]}'
        lines.append(matrix.line(name, row))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--page', type=Path, default=PAGE)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    # a line a parameter at each initialisation
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    torch.set_num_threads(1)
    lines = [BEGIN]
    for title, names in (
        ('Detectors', hosts.detectors()),
        ('Segmentors', hosts.segmentors()),
        ('Classifiers', hosts.classifiers()),
    ):
        lines += ['', f'### {title}', '', *table(names)]
    head, _, rest = args.page.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    text = '\n'.join([*lines, '', END])
    args.page.write_text(head + text + tail)


if __name__ == '__main__':
    main()
