"""The tables of explanations.py, made of its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from insertion_deletion import paired_interval

from mmaib.visualization.tables import difference, markdown

OWN = 'bottleneck'
# images, below which an interval says nothing
FEWEST = 5
MEASURES = {
    'difference': 'insertion - deletion',
    'insertion': 'insertion',
    'deletion': 'deletion',
    'difference_again': 'the same, detector run again',
    'difference_judge': 'the same, by the judge',
    'pointing': 'pointing',
    'kept': 'kept at equal bits',
    'energy': 'energy in box',
    'odi': 'ODI',
    'seconds': 's',
}
# what the bottleneck's paired differences are of
PAIRED = {
    'difference': f'{OWN} minus it',
    'difference_again': 'run again',
    'difference_judge': 'by the judge',
    'kept': 'at equal bits',
}
OPPONENTS = {
    'odam': 'ODAM',
    'layer-cam': 'LayerCAM',
    'centre': 'centre',
    'd-rise': 'D-RISE',
}


def table(records: list[dict[str, Any]]) -> str:
    """In Markdown: at a glance, over trainings, then a part a name."""
    by_name: dict[str, list] = defaultdict(list)
    for record in records:
        by_name[record['name']].append(record)
    glances = [at_a_glance(by_name, measure) for measure in PAIRED]
    parts = []
    for rows in (*glances, over_trainings(by_name)):
        parts += [*markdown(rows), ''] if rows[1:] else []
    for name, of_name in by_name.items():
        own = [r for r in of_name if 'methods' in r]
        images = {r['image'] for r in own}
        parts += [
            f'{name}: {len(own)} detections on {len(images)} photographs, '
            f'trainings of the base model: {len(trainings_of(own))}',
            '',
            *markdown(rows_of(own)),
            '',
        ]
        if changed := [r for r in of_name if 'methods' not in r]:
            parts += [
                f'The same {len(changed)} maps after a change, in the box:',
                '',
                *markdown(correlations([r['correlations'] for r in changed])),
                '',
            ]
    return '\n'.join(parts)


def at_a_glance(
    by_name: Mapping[str, Sequence[Mapping[str, Any]]], measure: str
) -> list[list[str]]:
    """The bottleneck minus each opponent, a row a name."""
    rows = [[PAIRED[measure], 'detections', *OPPONENTS.values()]]
    for name, of_name in by_name.items():
        all_of = [differences(of_name, m, measure) for m in OPPONENTS]
        if most := max(map(len, all_of)):
            cells = [
                gain(found) + f' ({len(found)})' * (0 < len(found) < most)
                for found in all_of
            ]
            rows.append([name, str(most), *cells])
    return rows


def over_trainings(
    by_name: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[list[str]]:
    """The same of the means of three trainings or more."""
    rows = [['over trainings', 'trainings', *OPPONENTS.values()]]
    for name, of_name in by_name.items():
        trainings = trainings_of(of_name)
        if len(trainings) < 3:
            continue
        row = [name, str(len(trainings))]
        for method in OPPONENTS:
            each = [differences(r, method, 'difference') for r in trainings]
            means = [float(np.mean([v for v, _ in x])) for x in each if x]
            row.append(difference(means))
        rows.append(row)
    return rows


def correlations(changed: list[dict[str, Any]]) -> list[list[str]]:
    """The mean rank correlation of each method after each change."""
    rows = [['rank correlation with itself', *changed[0][OWN]]]
    for method in changed[0]:
        means = (
            np.nanmean([c[method][name] for c in changed])
            for name in rows[0][1:]
        )
        rows.append([method, *(f'{mean:.2f}' for mean in means)])
    return rows


def rows_of(records: list[dict[str, Any]]) -> list[list[str]]:
    methods = list(dict.fromkeys(m for r in records for m in r['methods']))
    known = {m for r in records for one in r['methods'].values() for m in one}
    measures = {m: title for m, title in MEASURES.items() if m in known}
    paired = {m: title for m, title in PAIRED.items() if m in known}
    rows = [['method', *measures.values(), *paired.values(), 'detections']]
    for method in methods:
        here = [r for r in records if method in r['methods']]
        found = [r['methods'][method] for r in here]
        row = [method]
        for measure in measures:
            values = np.array([one.get(measure, np.nan) for one in found])
            there = values[~np.isnan(values)]
            row.append(f'{there.mean():.3f}' if len(there) else '-')
        row += [gain(differences(here, method, m)) for m in paired]
        rows.append([*row, str(len(here))])
    return rows


def trainings_of(records: Sequence[Mapping[str, Any]]) -> list[list]:
    """The judged detections of each training: a seed on a processor."""
    found: dict[tuple, list] = defaultdict(list)
    for record in records:
        if 'methods' in record:
            found[record.get('device'), record['seed']].append(record)
    return [*found.values()]


def differences(
    records: Sequence[Mapping[str, Any]], method: str, measure: str
) -> list[tuple[float, str]]:
    """The bottleneck minus a method, and the photograph, of each detection
    that has both."""
    found = []
    for record in records:
        methods = record.get('methods', {})
        own, other = methods.get(OWN, {}), methods.get(method, {})
        if method != OWN and measure in own and measure in other:
            found.append((own[measure] - other[measure], record['image']))
    return found


def gain(of_images: Sequence[tuple[float, str]]) -> str:
    """The mean of paired differences, with its interval where they are of
    enough photographs."""
    if not of_images:
        return '-'
    values, images = zip(*of_images)
    mean, low, high = paired_interval(values, images)
    enough = len({*images}) >= FEWEST
    return f'{mean:+.3f}' + f' [{low:+.3f}, {high:+.3f}]' * enough
