"""The tables of a calibration study, made of its records alone."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from statistics import mean

from mmaib.evaluation.nothing_found import of_nothing
from mmaib.visualization.tables import (
    Column,
    Runs,
    difference,
    markdown,
    paired,
    tabulate,
)

PLAIN, CONTROL = 'plain', 'stage2-no-noise'
TITLES = {
    'temperature': 'temperature scaling',
    CONTROL: 'stage two without noise',
}
# what all others are paired with
REFERENCES = (PLAIN, 'temperature', 'platt', CONTROL)
MEASURED = {
    'ece': 'ECE',
    'd_ece': 'D-ECE',
    'laece_0': 'LaECE_0',
    'lrp': 'LRP error',
    'nll': 'NLL',
    'accuracy': 'accuracy',
    'bbox_mAP': 'box AP',
    'mIoU': 'mIoU',
    'aurc': 'AURC',
}
Records = Mapping[str, Runs]  # by arm
Figures = dict[str, float]
OF_SHIFTS = re.compile('shift[-/]')  # means
SHIFT = re.compile(r'(?!shift-).+-[1-5]')  # a corruption and its severity
NOTE = (
    'Mean ± standard deviation over seeds; shift: mean over corruptions and '
    'severities, of an AP with 0 where nothing was found, of all else over '
    'those in which every run has a figure. Differences: mean and 95 % '
    "interval over seeds by Student's t, * if it is off zero."
)


def means(
    run: Mapping[str, float], name: str, shifts: Iterable[str]
) -> Figures:
    """A figure's mean over these shifts, and over those of each severity."""
    groups = defaultdict(list)
    for where in shifts:
        severity = where.rpartition('-')[2]
        for group in ('shift', f'shift-{severity}'):
            groups[group].append(run[f'{where}/{name}'])
    return {f'{k}/{name}': mean(values) for k, values in groups.items()}


def over_common_shifts(records: Records) -> tuple[Records, dict[str, str]]:
    """The records with an AP of 0 where nothing was found, and with means
    over the shifts in which every run has the figure.

    Returns:
        the records, and of how many shifts a mean is where it is not of all.
    """
    found = {
        arm: {
            seed: {k: v for k, v in run.items() if not OF_SHIFTS.match(k)}
            for seed, run in of_arm.items()
        }
        for arm, of_arm in records.items()
    }
    runs = [run for of_arm in found.values() for run in of_arm.values()]
    like: Figures = {}
    shifts: dict[str, None] = {}
    for run in runs:
        for key, value in run.items():
            where, _, name = key.partition('/')
            if SHIFT.fullmatch(where):
                shifts[where] = None
                like.setdefault(name, value)
    for run in runs:
        for where in ('clean', *shifts):
            for name, value in of_nothing(like).items():
                run.setdefault(f'{where}/{name}', value)
    notes = {}
    for name in like:
        there = [{s for s in shifts if f'{s}/{name}' in run} for run in runs]
        common = sorted(set.intersection(*filter(None, there)))
        for run, own in zip(runs, there):
            run.update(means(run, name, common) if own else {})
        if len(common) < len(shifts):
            notes[name] = f' ({len(common)} of {len(shifts)} shifts)'
    return found, notes


def table(records: Records) -> list[str]:
    """Means, then paired differences to each reference, then by severity."""
    records, notes = over_common_shifts(records)
    rows = {TITLES.get(arm, arm): runs for arm, runs in records.items()}
    there = {k for runs in rows.values() for run in runs.values() for k in run}
    severities = sorted(
        {k.partition('/')[0] for k in there if k.startswith('shift-')}
    )
    titles = {f'clean/{name}': title for name, title in MEASURED.items()}
    for name, title in MEASURED.items():
        titles[f'shift/{name}'] = f'{title}, shift{notes.get(name, "")}'
    by_severity = {
        f'{where}/{name}': f'{MEASURED[name]}, severity {where[6:]}'
        + notes.get(name, '')
        for name in ('ece', 'd_ece', 'nll')
        for where in severities
    }

    def figures(titles: Mapping[str, str]) -> list[str]:
        columns = [
            Column(t, name) for name, t in titles.items() if name in there
        ]
        return markdown(tabulate('arm', rows, columns))

    def differences(base: Runs) -> list[str]:
        columns = [
            Column(title, partial(paired, base=base, metric=name), difference)
            for name, title in titles.items()
            if name in there
        ]
        others = {
            k: runs for k, runs in rows.items() if runs not in (base, {})
        }
        return markdown(tabulate('arm', others, columns))

    lines = figures(titles)
    for arm in filter(records.get, REFERENCES):
        title = TITLES.get(arm, arm)
        lines += ['', f'Paired differences to {title}:', '']
        lines += differences(rows[title])
    if len(severities) > 1:
        lines += ['', 'By severity:', '', *figures(by_severity)]
    return lines
