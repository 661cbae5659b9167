"""One page about one run or several, to open in a browser or to send.

    mmaib report WORK_DIR... [--out report.html]

reads the work dirs of `mmaib train`, of a readout, a study or a demo, also
while they train, and folders of records. The page, one file
that needs no network, has what differs between the configs, metrics over
seeds, where the maps look and what depends on them, every loss and monitor
over the training, and a gallery of the images that

    mmaib visualize CONFIG CHECKPOINT --out WORK_DIR/attention

drew, worst first. An `interpretability.json` in a folder is shown too, and the
pictures that a calibration metric drew into a run's folder (its `out_dir`).
"""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from .charts import Line, chart, short
from .gallery import SCORES, data_uri, failures, pictures
from .tables import CHANGES, METRICS, OF_MAPS
from .work_dirs import (
    MONITORS,
    Group,
    Run,
    differences,
    find_runs,
    grouped,
    last_checkpoint,
    read_json,
)

SHOWN = (*MONITORS, 'beta_factor')
CALIBRATION = 'calibration/'
DIAGRAMS = ('reliability.png', 'risk_coverage.png')
OF_DATA = ('attention/area', 'attention/auc_centre')


class Table(NamedTuple):
    """With cells of text; the first column are the rows' heads."""

    head: list[str]
    rows: list[list[str]]


def seeds(group: Group) -> str:
    return ', '.join(str(run.seed) for run in group.runs)


def metric_names(groups: Sequence[Group]) -> list[str]:
    """The base libraries' metrics that any run has."""
    return [m for m in METRICS if any(g.values(m) for g in groups)]


def metric_table(groups: Sequence[Group]) -> Table:
    """The base libraries' metrics, and the difference to the first group in
    the same seeds."""
    metrics = metric_names(groups)
    head = ['config', 'seeds']
    for metric in metrics:
        head += [metric, 'paired difference']
    rows = []
    for group in groups:
        row = [group.label, seeds(group)]
        for metric in metrics:
            row.append(group.cell(metric))
            first, own = groups[0].by_seed(metric), group.by_seed(metric)
            paired = [own[s] - first[s] for s in own if s in first]
            row.append('-' if group is groups[0] else group.shown(paired))
        row.append('; '.join(dict.fromkeys(run.state for run in group.runs)))
        rows.append(row)
    head.append('state')
    if len(groups) == 1:  # nothing to be paired with
        kept = [i for i, n in enumerate(head) if n != 'paired difference']
        head = [head[i] for i in kept]
        rows = [[row[i] for i in kept] for row in rows]
    return Table(head, rows)


def attention_table(groups: Sequence[Group]) -> Table | None:
    """Where the maps look and what is lost without them, with a uniform map
    as the last row; None without a map."""
    there = [
        name
        for name in (*OF_MAPS, 'attention/pointing')
        if any(g.values(name) for g in groups)
    ]
    drops = [
        (change, metric)
        for metric in metric_names(groups)[:1]
        for change in CHANGES
        if any(g.values(f'ablation/{change}/{metric}') for g in groups)
    ]
    if not there and not drops:
        return None
    head = ['config', 'seeds', *(f'lost by {change}' for change, _ in drops)]
    head += [OF_MAPS.get(n, n.partition('/')[2]) for n in there]
    rows = []
    areas = []
    for group in groups:
        row = [group.label, seeds(group)]
        for change, metric in drops:
            name = f'ablation/{change}/{metric}'
            lost = [
                run.metrics[metric] - run.metrics[name]
                for run in group.runs
                if {name, metric} <= run.metrics.keys()
            ]
            row.append(group.shown(lost))
        missing = '-' if any(map(group.values, there)) else 'no map'
        for name in there:
            digits = 0 if 'bits' in name else 3
            found = group.values(name)
            row.append(group.shown(found, digits) if found else missing)
        areas += group.values('attention/area')
        rows.append(row)
    uniform = {'attention/auc': '0.500', 'attention/contrast': '0.000'}
    if areas:
        share = f'{mean(areas):.3f}'
        uniform.update({'attention/energy': share, 'attention/area': share})
    rows.append(
        [
            'a uniform map',
            '',
            *('0.0000' for _ in drops),
            *(uniform.get(name, '-') for name in there),
        ]
    )
    return Table(head, rows)


def calibration_table(groups: Sequence[Group]) -> Table | None:
    """How well the models know what they know; None if no run was asked."""
    names = dict.fromkeys(
        name
        for group in groups
        for run in group.runs
        for name in run.metrics
        if name.startswith(CALIBRATION)
    )
    if not names:
        return None
    rows = [
        [
            group.label,
            seeds(group),
            *(group.cell(name) for name in names),
        ]
        for group in groups
    ]
    head = [name.removeprefix(CALIBRATION) for name in names]
    return Table(['config', 'seeds', *head], rows)


def diagrams(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """What the calibration metrics drew into the runs' folders: where from,
    and the picture as a data URI."""
    return [
        (
            f'{group.label}, seed {run.seed}: {path.relative_to(run.path)}',
            data_uri(path, 700),
        )
        for group in groups
        for run in group.runs
        if run.path.is_dir()
        for name in DIAGRAMS
        for path in sorted(run.path.rglob(name))
    ]


def all_metrics(groups: Sequence[Group]) -> Table:
    """Everything that the runs ended with."""
    names = dict.fromkeys(
        name for g in groups for run in g.runs for name in run.metrics
    )
    rows = []
    for name in sorted(names):
        row = [name]
        for group in groups:
            values = group.values(name)
            text = short(mean(values)) if values else '-'
            if len(values) > 1:
                text += f' ± {short(stdev(values))}'
            if 0 < len(values) < len(group.runs):
                text += f' ({len(values)} of {len(group.runs)})'
            row.append(text)
        rows.append(row)
    return Table(['metric', *(g.label for g in groups)], rows)


def charts(groups: Sequence[Group], log: str, names: Sequence[str]) -> str:
    """A chart for each of these series of ``Run.training`` or
    ``Run.evaluation``."""
    drawn = []
    for name in names:
        lines = [
            Line(f'{group.label}, seed {run.seed}', number, series[name])
            for number, group in enumerate(groups)
            for run in group.runs
            if name in (series := getattr(run, log))
        ]
        # a value alone is in the tables
        if any(len(line.points) > 1 for line in lines):
            drawn.append(chart(name, lines))
    return ''.join(drawn)


def series_names(groups: Sequence[Group], log: str) -> list[str]:
    return list(
        dict.fromkeys(
            name
            for group in groups
            for run in group.runs
            for name in getattr(run, log)
        )
    )


def curves(groups: Sequence[Group]) -> dict[str, str]:
    """Charts by what they are about; those without one are left out."""
    training = series_names(groups, 'training')
    evaluation = [
        name
        for name in series_names(groups, 'evaluation')
        if name in METRICS
        or (name.startswith('attention/') and name not in OF_DATA)
    ]
    losses = [name for name in training if 'loss' in name]
    monitors = [n for n in training if n.startswith(SHOWN) and n not in losses]
    found = {
        'Losses': charts(groups, 'training', losses),
        'Maps, anchors, bits': charts(groups, 'training', monitors),
        'Evaluations': charts(groups, 'evaluation', evaluation),
    }
    return {title: drawn for title, drawn in found.items() if drawn}


def attention_command(groups: Sequence[Group]) -> str | None:
    """What would fill an empty gallery, of the first run that could."""
    for run in (run for group in reversed(groups) for run in group.runs):
        last = run.path / 'last_checkpoint'
        configs = sorted(run.path.glob('*.py')) if run.path.is_dir() else []
        if configs and last.exists() and _has_maps(run):
            words: list[object] = ['mmaib', 'visualize', configs[0]]
            words += [
                last_checkpoint(run.path),
                '--out',
                run.path / 'attention',
            ]
            return shlex.join(map(str, words))
    return None


def _has_maps(run: Run) -> bool:
    return any(name.startswith('attention_') for name in run.training)


def interpretability(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What `interpretability.py` left in the folders."""
    paths = (p for f in folders for p in f.rglob('interpretability.json'))
    found = [read_json(path) for path in sorted({*paths})]
    return [tables for tables in found if tables]


def render(
    folders: Sequence[Path],
    per_run: int,
    title: str | None = None,
    command: str = '',
) -> str:
    """The page.

    Args:
        folders: work dirs, studies, folders of records.
        per_run: how many pictures of each, at most.
        title: the folders' names by default.
        command: that made the page, shown below it.

    Raises:
        FileNotFoundError: if a folder has neither run nor record.
    """
    groups = grouped(find_runs(folders))
    cards, left_out = pictures(groups, per_run)
    configs = {
        group.label: group.runs[0].config
        for group in groups
        if group.runs[0].config is not None
    }
    fields = differences(configs) if len(configs) > 1 else []
    first = next((r for g in groups for r in g.runs if r.facts), None)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('report.html').render(
        title=title or ', '.join(folder.name for folder in folders),
        groups=groups,
        metrics=metric_table(groups),
        attention=attention_table(groups),
        everything=all_metrics(groups),
        calibration=calibration_table(groups),
        diagrams=diagrams(groups),
        interpretability=interpretability(folders),
        differences=Table(
            ['field', *configs], [[name, *texts] for name, texts in fields]
        ),
        configs={label: cfg.pretty_text for label, cfg in configs.items()},
        curves=curves(groups),
        cards=cards,
        left_out=left_out,
        failures=failures(cards),
        scores={
            name: text
            for name, text in SCORES.items()
            if any(name in card.scores for card in cards)
        },
        attention_command=attention_command(groups),
        facts=first.facts if first else {},
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
        command=command,
    )
