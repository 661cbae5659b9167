"""The tables of a calibration study, made of its records alone."""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import numpy as np

from mmaib.evaluation.nothing_found import of_nothing
from mmaib.visualization.tables import Runs, counted, markdown, paired, values

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
Figures = dict[str, float]
OF_SHIFTS = re.compile('shift[-/]')  # means
SHIFT = re.compile(r'(?!shift-).+-[1-5]')  # a corruption and its severity


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


def with_means(by_set: Mapping[str, Mapping[str, float]]) -> Figures:
    """All figures of a test, those under shift one by one, and the means of
    those that every shift has."""
    flat = {
        f'{where}/{name}': value
        for where, own in by_set.items()
        for name, value in own.items()
    }
    shifts = [where for where in by_set if where != 'clean']
    like = {n: v for own in by_set.values() for n, v in own.items()}
    nothing = of_nothing(like)
    for where in by_set:
        for name, value in nothing.items():
            flat.setdefault(f'{where}/{name}', value)
    for name in like:
        if all(f'{where}/{name}' in flat for where in shifts):
            flat.update(means(flat, name, shifts))
    return flat


def means(
    run: Mapping[str, float], name: str, shifts: Sequence[str]
) -> Figures:
    """Of a figure over these shifts, and over those of each severity."""
    groups = defaultdict(list)
    for where in shifts:
        groups['shift'].append(run[f'{where}/{name}'])
        severity = where.rpartition('-')[2]
        groups[f'shift-{severity}'].append(run[f'{where}/{name}'])
    return {f'{k}/{name}': mean(values) for k, values in groups.items()}


def over_common_shifts(records: Records) -> tuple[Records, dict[str, str]]:
    """The records with an AP of 0 where nothing was found, and with means
    over the shifts in which every run has the figure.

    Returns:
        the records, and of how many shifts a mean is where it is not of all.
    """
    like: Figures = {}
    having: dict[str, set[str]] = {}
    for of_arm in records.values():
        for run in of_arm.values():
            for key, value in run.items():
                where, _, name = key.partition('/')
                if SHIFT.fullmatch(where):
                    having.setdefault(name, set()).add(where)
                like.setdefault(name, value)
    shifts = sorted({where for places in having.values() for where in places})
    nothing = of_nothing({n: like[n] for n in having})
    found: dict[str, dict[int, Figures]] = {}
    for arm, of_arm in records.items():
        found[arm] = {}
        for seed, kept in of_arm.items():
            own = {k: v for k, v in kept.items() if not OF_SHIFTS.match(k)}
            for where in ('clean', *shifts):
                for name, value in nothing.items():
                    own.setdefault(f'{where}/{name}', value)
            found[arm][seed] = own
    notes = {}
    runs = [run for of_arm in found.values() for run in of_arm.values()]
    for name in having:
        there = [
            {where for where in shifts if f'{where}/{name}' in run}
            for run in runs
        ]
        common = sorted(set.intersection(*filter(None, there)))
        for run, own_shifts in zip(runs, there):
            if own_shifts:
                run.update(means(run, name, common))
        if len(common) < len(shifts):
            notes[name] = f' ({len(common)} of {len(shifts)} shifts)'
    return found, notes


def columns(records: Records, notes: Mapping[str, str]) -> dict[str, str]:
    """Titles of the metrics that some run has."""
    there = {
        k for runs in records.values() for run in runs.values() for k in run
    }
    titles = {f'clean/{name}': title for name, title in MEASURED.items()}
    for name, title in MEASURED.items():
        titles[f'shift/{name}'] = f'{title}, shift{notes.get(name, "")}'
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
    return markdown(lines)


def table(records: Records) -> str:
    """In Markdown: means, then paired differences to each reference."""
    records, notes = over_common_shifts(records)
    titles = columns(records, notes)

    def of_runs(runs: Runs, name: str) -> str:
        found = values(runs, name)
        return counted(found, of=len(runs)) if runs else 'not run'

    lines = rows(records, titles, of_runs)
    for reference, title in REFERENCES.items():
        base = records[reference]

        def to_reference(runs: Runs, name: str, base: Runs = base) -> str:
            found = paired(runs, base, name)
            return counted(found, difference, len(runs) if found else 0)

        others = {k: v for k, v in records.items() if k != reference}
        lines += ['', f'Paired differences to {title}:', '']
        lines += rows(others, titles, to_reference)
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
        + notes.get(name, '')
        for name in ('ece', 'd_ece', 'nll')
        for where in severities
        if f'clean/{name}' in titles
    }
    if len(severities) > 1:
        lines += ['', 'By severity:', '', *rows(records, by_severity, of_runs)]
    command = ' '.join(['python', *sys.argv])
    return '\n'.join(
        [
            *lines,
            '',
            'Mean ± standard deviation over seeds; shift: mean over '
            'corruptions and severities, of an AP with 0 where nothing was '
            'found, of all else over those in which every run has a figure. '
            'Differences: mean and 95 % bootstrap '
            'interval over seeds, * if it is off zero. Command: '
            f'`{command}`',
            '',
        ]
    )
