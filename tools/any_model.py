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


def table(names: dict, kept: dict[str, str]) -> list[str]:
    """Lines of a table, some of them as they were; a host that fails is a
    row with the reason."""
    lines = [
        f'| host | {" | ".join(matrix.COLUMNS)} |',
        '|---' * (len(matrix.COLUMNS) + 1) + '|',
    ]
    for name in names:
        if name in kept:
            lines.append(kept[name])
            continue
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
    parser.add_argument(
        'only', nargs='*', help='hosts to run; the others keep their rows'
    )
    args = parser.parse_args()
    if unknown := {*args.only} - {*hosts.HOSTS}:
        parser.error(f'unknown {unknown}; there are {[*hosts.HOSTS]}')
    warnings.simplefilter('ignore')
    # a line a parameter at each initialisation
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    torch.set_num_threads(1)
    head, _, rest = args.page.read_text().partition(BEGIN)
    rows = {line.split(' | ')[0][2:]: line for line in rest.split('\n')}
    kept = {
        name: rows[name]
        for name in hosts.HOSTS
        if args.only and name not in args.only and name in rows
    }
    lines = [BEGIN]
    for title, names in (
        ('Detectors', hosts.detectors()),
        ('Segmentors', hosts.segmentors()),
        ('Classifiers', hosts.classifiers()),
    ):
        lines += ['', f'### {title}', '', *table(names, kept)]
    tail = rest.partition(END)[2]
    text = '\n'.join([*lines, '', END])
    args.page.write_text(head + text + tail)


if __name__ == '__main__':
    main()
