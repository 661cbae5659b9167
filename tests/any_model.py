"""Run the matrix of base models and write its tables into
docs/any_model.md."""

import argparse
import tempfile
from pathlib import Path

import torch
from support import REPOSITORY, base_models, matrix

PAGE = REPOSITORY / 'docs' / 'any_model.md'
BEGIN, END = '<!-- tables: python tests/any_model.py -->', '<!-- end -->'


def table(
    names: dict, kept: dict[str, list[str]], ddp: dict[str, str]
) -> list[str]:
    """Lines of a table.

    Args:
        names: of its base models.
        kept: cells that stay as they were.
        ddp: the last cell, where it is new.
    """
    lines = [
        f'| base model | {" | ".join(matrix.COLUMNS)} |',
        '|---' * (len(matrix.COLUMNS) + 1) + '|',
    ]
    for name in names:
        cells = kept.get(name) or row(name)
        cells = [*cells[: len(matrix.COLUMNS) - 1], ddp.get(name, cells[-1])]
        lines.append(f'| {name} | {" | ".join(cells)} |')
        print(lines[-1], flush=True)
    return lines


def row(name: str) -> list[str]:
    """Cells of a base model, without the last; of one that fails the
    reason."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return [*matrix.row(name, Path(folder)).values()]
        except Exception as error:
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            return [f'fails: {reason[:200]}', *[''] * len(matrix.COLUMNS[2:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--page', type=Path, default=PAGE)
    parser.add_argument(
        'only',
        nargs='*',
        help='base models to run; the others keep their rows',
    )
    parser.add_argument(
        '--ddp',
        action='store_true',
        help='the last column alone; the others stay as they are',
    )
    args = parser.parse_args()
    if unknown := {*args.only} - {*base_models.BASE_MODELS}:
        parser.error(
            f'unknown {unknown}; there are {[*base_models.BASE_MODELS]}'
        )
    matrix.quiet()
    torch.set_num_threads(1)
    head, _, rest = args.page.read_text().partition(BEGIN)
    rows = [line.strip('| ').split(' | ') for line in rest.split('\n')]
    written = {
        name: cells for name, *cells in rows if name in base_models.BASE_MODELS
    }
    due = args.only or base_models.installed()
    with tempfile.TemporaryDirectory() as folder:
        ddp = matrix.ddp(due, Path(folder))
    kept = {
        name: cells
        for name, cells in written.items()
        if args.ddp or name not in due
    }
    lines = [BEGIN]
    for title, names in (
        ('Detectors', base_models.detectors()),
        ('Rotated detectors, of mmrotate', base_models.rotated()),
        ('Segmentors', base_models.segmentors()),
        ('Classifiers', base_models.classifiers()),
    ):
        lines += ['', f'### {title}', '', *table(names, kept, ddp)]
    tail = rest.partition(END)[2]
    text = '\n'.join([*lines, '', END])
    args.page.write_text(head + text + tail)


if __name__ == '__main__':
    main()
