"""The tables of a calibration study, made of its records alone."""

import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import numpy as np
import study

RESAMPLES = 10_000
PLAIN, TEMPERATURE, CONTROL = 'plain', 'temperature', 'stage2-no-noise'
REFERENCES = {
    PLAIN: 'plain',
    TEMPERATURE: 'temperature scaling',
    CONTROL: 'stage two without noise',
}
MEASURED = {
    'ece': 'ECE',
    'd_ece': 'D-ECE',
    'd_ece_box': 'D-ECE, box',
    'nll': 'NLL',
    'accuracy': 'accuracy',
    'bbox_mAP': 'box AP',
    'mIoU': 'mIoU',
    'aurc': 'AURC',
}
Records = Mapping[str, Mapping[int, Mapping[str, float]]]  # arm, seed


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean lies in 95 of 100 resamples of the seeds."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)


def difference(values: Sequence[float]) -> str:
    """A paired difference, its interval, and a star if that is off zero."""
    if len(values) < 2:
        return f'{mean(values):+.4f}' if values else 'not run'
    low, high = interval(values)
    star = ' *' if low > 0 or high < 0 else ''
    return f'{mean(values):+.4f} [{low:+.4f}, {high:+.4f}]{star}'


def columns(records: Records) -> dict[str, str]:
    """Titles of the metrics that some run has."""
    there = {
        k for runs in records.values() for run in runs.values() for k in run
    }
    titles = {
        f'{where}/{name}': title + ('' if where == 'clean' else ', shift')
        for where in ('clean', 'shift')
        for name, title in MEASURED.items()
    }
    titles['ood/auroc'] = 'AUROC, OOD'
    return {name: title for name, title in titles.items() if name in there}


def rows(
    records: Records, titles: Mapping[str, str], cell: Callable[..., str]
) -> list[str]:
    """A table; ``cell`` is given an arm's runs and a metric."""
    head = ['arm', 'seeds', *titles.values()]
    lines = [head, ['---'] * len(head)]
    for arm, runs in records.items():
        seeds = ', '.join(map(str, runs)) or 'not run'
        cells = [cell(runs, name) for name in titles]
        lines.append([REFERENCES.get(arm, arm), seeds, *cells])
    return study.markdown(lines)


def table(records: Records) -> str:
    """In Markdown: means, then paired differences to each reference."""
    titles = columns(records)

    def of_runs(runs: Mapping[int, Mapping[str, float]], name: str) -> str:
        return study.cell([run[name] for run in runs.values() if name in run])

    lines = rows(records, titles, of_runs)
    for reference, title in REFERENCES.items():
        base = records[reference]

        def paired(
            runs: Mapping[int, Mapping[str, float]],
            name: str,
            base: Mapping[int, Mapping[str, float]] = base,
        ) -> str:
            return difference(
                [
                    run[name] - base[seed][name]
                    for seed, run in runs.items()
                    if name in run and name in base.get(seed, {})
                ]
            )

        others = {k: v for k, v in records.items() if k != reference}
        lines += ['', f'Paired differences to {title}:', '']
        lines += rows(others, titles, paired)
    severities = sorted(
        {
            name.partition('/')[0]
            for runs in records.values()
            for run in runs.values()
            for name in run
            if name.startswith('shift-')
        }
    )
    by_severity = {
        f'{where}/{name}': f'{MEASURED[name]}, severity {where[6:]}'
        for name in ('ece', 'd_ece', 'nll')
        for where in severities
        if f'clean/{name}' in titles
    }
    if severities:
        lines += ['', 'By severity:', '', *rows(records, by_severity, of_runs)]
    command = ' '.join(['python', *sys.argv])
    return '\n'.join(
        [
            *lines,
            '',
            'Mean ± standard deviation over seeds; shift: mean over '
            'corruptions and severities. Differences: mean and 95 % bootstrap '
            'interval over seeds, * if it is off zero. Command: '
            f'`{command}`',
            '',
        ]
    )
