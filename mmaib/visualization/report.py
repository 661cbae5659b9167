"""One page about one run or several, to open in a browser or to send.

    mmaib report WORK_DIR... [--out report.html]

reads the work dirs of `mmaib train`, of a readout, a study or a demo, also
while they train, and folders of records. The page, one file
that needs no network, has what differs between the configs, metrics over
seeds, where the maps look and what depends on them, every loss and monitor
over the training, and a gallery of the images that

    mmaib visualize CONFIG CHECKPOINT --out WORK_DIR/attention

drew, worst first.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev

from jinja2 import Environment, FileSystemLoader

from .charts import Line, chart
from .gallery import SCORES, pictures
from .tables import (
    METRICS,
    OF_MAPS,
    Column,
    cell,
    columns_of_maps,
    columns_of_metrics,
    tabulate,
    values,
)
from .work_dirs import (
    MONITORS,
    TIMES,
    Group,
    differences,
    find_runs,
    grouped,
)

SHOWN = (*MONITORS, 'beta_factor')
CALIBRATION = 'calibration/'
AREA = 'attention/area'
OF_DATA = (AREA, 'attention/auc_centre')
LOOKS = {**OF_MAPS, 'attention/pointing': 'pointing'}
Table = list[list[str]]  # its head first


def metrics_of(groups: Sequence[Group]) -> list[str]:
    """The base libraries' metrics that any run has."""
    names = names_of(groups)
    return [metric for metric in METRICS if metric in names]


def metric_table(groups: Sequence[Group]) -> Table:
    """The base libraries' metrics, the difference to the first group in the
    same seeds, and how far the runs are."""
    rows = {group.label: group.metrics for group in groups}
    columns = columns_of_metrics(metrics_of(groups), rows[groups[0].label])
    if len(groups) == 1:  # nothing to be paired with
        columns = columns[::2]
    head, *body = tabulate('config', rows, columns)
    for row, group in zip(body, groups):
        row.append('; '.join(dict.fromkeys(run.state for run in group.runs)))
    return [[*head, 'state'], *body]


def attention_table(groups: Sequence[Group]) -> Table | None:
    """Where the maps look and what is lost without them, with a uniform map
    as the last row; None without a map."""
    rows = {group.label: group.metrics for group in groups}
    columns = columns_of_maps(rows.values(), metrics_of(groups), cell, LOOKS)
    if not columns:
        return None
    head, *body = tabulate('config', rows, columns)
    looks = [c.head for c in columns if c.head in LOOKS.values()]
    first = len(head) - len(looks)
    for row in body:
        if {*row[first:]} == {'-'}:
            row[first:] = ['no map'] * len(looks)
    areas = [a for runs in rows.values() for a in values(runs, AREA)]
    share = f'{mean(areas):.3f}' if areas else '-'
    uniform = dict(AUC='0.500', contrast='0.000', energy=share, area=share)
    last = [
        '0.0000' if c.head not in looks else uniform.get(c.head, '-')
        for c in columns
    ]
    return [head, *body, ['a uniform map', '', *last]]


def calibration_table(groups: Sequence[Group]) -> Table | None:
    """How well the models know what they know; None if no run was asked."""
    names = [n for n in names_of(groups) if n.startswith(CALIBRATION)]
    columns = [Column(name.removeprefix(CALIBRATION), name) for name in names]
    rows = {group.label: group.metrics for group in groups}
    return tabulate('config', rows, columns) if names else None


def names_of(groups: Sequence[Group], log: str = 'metrics') -> list[str]:
    """The names of all figures, or series, that any run has."""
    runs = [run for group in groups for run in group.runs]
    return list(dict.fromkeys(n for run in runs for n in getattr(run, log)))


def all_metrics(groups: Sequence[Group]) -> Table:
    """Everything that the runs ended with, a row a figure."""

    def short(found: Sequence[float]) -> str:
        text = f'{mean(found):.4g}'
        return text + (f' ± {stdev(found):.4g}' if len(found) > 1 else '')

    rows = [['metric', *(g.label for g in groups)]]
    for name in sorted({*names_of(groups)} - TIMES):
        column = Column('', name, short)
        rows.append([name, *(column.text(g.metrics) for g in groups)])
    return rows


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


def curves(groups: Sequence[Group]) -> dict[str, str]:
    """Charts by what they are about; those without one are left out."""
    training = names_of(groups, 'training')
    evaluation = [
        name
        for name in names_of(groups, 'evaluation')
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


def render(
    folders: Sequence[Path],
    per_run: int,
    title: str | None = None,
    command: str = '',
) -> str:
    """The page about work dirs, studies or folders of records, with at most
    so many pictures of each run; below it the command that made it.

    Raises:
        FileNotFoundError: if a folder has neither run nor record.
    """
    groups = grouped(find_runs(folders))
    cards, left_out = pictures(groups, per_run)
    configs = {g.label: g.runs[0].config for g in groups if g.runs[0].config}
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
        differences=[['field', *configs], *fields],
        configs={label: cfg.pretty_text for label, cfg in configs.items()},
        curves=curves(groups),
        cards=cards,
        left_out=left_out,
        scores={
            name: text
            for name, text in SCORES.items()
            if any(name in card.scores for card in cards)
        },
        facts=first.facts if first else {},
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
        command=command,
    )
