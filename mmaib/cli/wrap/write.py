"""The text of a config with attention over a base config."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path
from typing import Any

from yapf.yapflib.yapf_api import FormatCode  # MMEngine requires it

from mmaib.layers.map_changes import MAP_CHANGES
from mmaib.registry import type_name, type_path

from .plan import GATES, READOUT, Expression

ABLATIONS = [*MAP_CHANGES]
WARMUP, EVALUATION = 'mmaib.BetaWarmupHook', 'mmaib.AttentionEvalHook'
# fields of metrics that name what they write
FILES = {
    'outfile_prefix', 'output_dir', 'out_dir', 'out_file_path', 'outfile_path',
    'seg_out_dir', 'file_path', 'csv_dir', 'save_dir',
}  # fmt: skip


def hooks(
    cfg: Any, attention: str, iterations: int = 0
) -> tuple[dict[str, Any], str | None]:
    """Entries of ``default_hooks``, and what to print of them. Not of
    ``custom_hooks``, a list that would replace the base config's own."""
    if attention not in GATES:
        return {}, None
    theirs = cfg.get('default_hooks') or {}
    train = cfg.get('train_cfg') or {}
    if attention == READOUT:
        train = dict(max_iters=iterations)
    listed = {type_name(h['type']) for h in cfg.get('custom_hooks') or []}

    def place(kind: str, name: str) -> str:
        same = (
            key
            for key, hook in theirs.items()
            if hook and type_name(hook.get('type', '')) == kind
        )
        return next(same, f'mmaib_{name}' if name in theirs else name)

    gate, watch = place(WARMUP, 'gate'), place(EVALUATION, 'attention')
    epochs, steps = train.get('max_epochs'), train.get('max_iters')
    # theirs was made for another schedule
    deleted = dict(_delete_=True) if gate in theirs else {}
    warmup: dict[str, Any] = dict(**deleted, type=WARMUP)
    said = None
    if steps:
        warmup['end'] = max(1, steps // 2)
    elif epochs and epochs > 3:
        warmup.update(end=epochs // 2, by_epoch=True)
    else:
        warmup['end'] = 500
        said = (
            None
            if WARMUP in listed
            else (
                f'default_hooks.{gate}.end: 500 iterations; half of your '
                'training is what was measured'
            )
        )
    ablations = (theirs.get(watch) or {}).get('ablations') or ABLATIONS
    made: dict[str, Any] = {
        gate: warmup,
        watch: dict(type=EVALUATION, ablations=[*ablations]),
    }
    if attention != READOUT:  # whose own replace the listed ones
        made = {k: h for k, h in made.items() if h['type'] not in listed}
    else:
        # an evaluator's files are those of the base model
        made[watch].update(ablations=['open', *ABLATIONS], confined=True)
        made['logger'] = dict(
            type='LoggerHook',
            interval=min(10, iterations),
            log_metric_by_epoch=False,
        )
        made['checkpoint'] = dict(
            type='mmaib.SafeCheckpointHook', by_epoch=False,
            interval=iterations,
        )  # fmt: skip
        for hook in ('logger', 'checkpoint'):
            if (theirs.get(hook) or {}).get('out_dir'):
                made[hook]['out_dir'] = None
    return made, said


def own_run(cfg: Any, base: str, out: Path, attention: str) -> dict[str, Any]:
    """Fields by which a training neither goes on nor writes where another
    did: the base config's (``base`` is its path or name), one of another
    written file, or whoever left something there."""
    fields: dict[str, Any] = {}
    stem = Path(base.rpartition('::')[2]).stem
    theirs = cfg.get('work_dir') or _work_dir(stem)
    # files of one name in several folders are different ones
    place, here = out.resolve().with_suffix(''), Path.cwd().resolve()
    if place.is_relative_to(here):
        place = place.relative_to(here)
    name = '__'.join(place.parts).lstrip('/_')
    names = chain([name], (f'{name}__{number}' for number in count(2)))
    work_dir = next(d for d in map(_work_dir, names) if not _taken(d, theirs))
    if cfg.get('work_dir') or work_dir != _work_dir(out.stem):
        fields['work_dir'] = work_dir
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = cfg.to_dict().get(name)
        own = _files_below(work_dir, metrics)
        if own != metrics:
            replaced = isinstance(own, dict)
            fields[name] = dict(_delete_=True, **own) if replaced else own
    if cfg.get('resume'):
        fields['resume'] = False
    if attention == READOUT and cfg.get('load_from'):
        # what the base model started from; `mmaib readout` gives its own
        fields['load_from'] = None
    return fields


def _files_below(work_dir: str, metrics: Any) -> Any:
    """Metrics whose files are below a folder, not where the base config's
    are."""
    if isinstance(metrics, list | tuple):
        return type(metrics)(_files_below(work_dir, m) for m in metrics)
    if not isinstance(metrics, dict):
        return metrics
    return {
        name: f'{work_dir}/{Path(value).name}'
        if name in FILES and isinstance(value, str)
        else _files_below(work_dir, value)
        for name, value in metrics.items()
    }


def _work_dir(name: str) -> str:
    """Where `mmaib train` and the base libraries' tools train a config."""
    return f'./work_dirs/{name}'


def _taken(work_dir: str, theirs: str) -> bool:
    """Whether it is theirs, or has anything in it. By its last name, too:
    under that a CheckpointHook with an ``out_dir`` keeps checkpoints."""
    if Path(work_dir).name == Path(theirs).name:
        return True
    folder = Path(work_dir)
    return folder.exists() and any(folder.iterdir())


def checked_files(cfg: Any) -> dict[str, Any]:
    """Fields that put CheckFiles before a training's pipelines."""
    loader = cfg.get('train_dataloader') or {}
    path = '_base_.train_dataloader.dataset'
    dataset = _checked(loader.get('dataset'), path)
    return dict(train_dataloader=dict(dataset=dataset)) if dataset else {}


def _checked(dataset: Any, path: str) -> dict[str, Any]:
    """What changes in a data set, or in those inside it."""
    if not isinstance(dataset, dict):
        return {}
    steps = {
        type_name(step['type']).rpartition('.')[2]: step
        for step in dataset.get('pipeline') or ()
    }
    if 'CheckFiles' in steps:
        return {}
    if step := steps.get('LoadImageFromFile'):
        if step.get('imdecode_backend') == 'tifffile':
            return {}  # bands that Pillow does not know
        check: dict[str, Any] = dict(type='mmaib.CheckFiles')
        if step.get('backend_args'):
            check['backend_args'] = {**step['backend_args']}
        return dict(pipeline=[check, Expression(f'*{path}.pipeline')])
    if made := _checked(dataset.get('dataset'), f'{path}.dataset'):
        return dict(dataset=made)
    places = {
        f'{path}.datasets[{i}]': part
        for i, part in enumerate(dataset.get('datasets') or ())
    }
    changes = {place: _checked(part, place) for place, part in places.items()}
    if not any(changes.values()):
        return {}
    # a list replaces the base's, so that each part is written as a whole
    return dict(datasets=[_whole(v, place) for place, v in changes.items()])


def _whole(change: dict[str, Any], path: str) -> Expression:
    """What is at a path of the base, but for a change."""
    if not change:
        return Expression(path)
    fields = [
        f'{k}={_whole(v, f"{path}.{k}") if isinstance(v, dict) else flat(v)}'
        for k, v in change.items()
    ]
    return Expression(f'dict({path}, {", ".join(fields)})')


def schedule(cfg: Any, iterations: int, package: str | None) -> dict[str, Any]:
    """Fields by which a readout trains, whatever the base model, of that
    package, trained by: AdamW, a short warm-up, a cosine to zero, one
    evaluation at the end."""
    warmup = max(1, iterations // 4)
    rate = 0.01 if package == 'mmdet' else 0.001
    fields: dict[str, Any] = dict(
        optim_wrapper=dict(
            **_instead(cfg, 'optim_wrapper'),
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=rate, weight_decay=0.05),
            clip_grad=dict(max_norm=10.0),
        ),
        param_scheduler=[
            dict(
                type='LinearLR', start_factor=0.01, by_epoch=False, end=warmup
            ),
            dict(
                type='CosineAnnealingLR',
                T_max=iterations,
                end=iterations,
                by_epoch=False,
            ),
        ],
        train_cfg=dict(
            **_instead(cfg, 'train_cfg'),
            type='IterBasedTrainLoop',
            max_iters=iterations,
            val_interval=iterations,
        ),
        log_processor=dict(by_epoch=False),
    )
    if drawn := cfg.get('visualizer'):
        own = without_places(drawn.to_dict())
        if own != drawn.to_dict():
            fields['visualizer'] = dict(_delete_=True, **own)
    # an average over so few steps would still be what the map started from
    theirs = cfg.get('custom_hooks') or []
    dropped = ('EMAHook', WARMUP, EVALUATION)
    kept = [h for h in theirs if not type_name(h['type']).endswith(dropped)]
    if len(kept) < len(theirs):
        fields['custom_hooks'] = [hook.to_dict() for hook in kept]
    return fields


def without_places(visualizer: dict[str, Any]) -> dict[str, Any]:
    """A visualizer that writes to the work dir."""
    own = {k: v for k, v in visualizer.items() if k != 'save_dir'}
    if own.get('vis_backends'):
        own['vis_backends'] = [without_places(b) for b in own['vis_backends']]
    return own


def _instead(cfg: Any, field: str) -> dict[str, Any]:
    """Replaces what the base config has there. MMEngine leaves it in where
    that has nothing, and the class would be given it."""
    return dict(_delete_=True) if cfg.get(field) else {}


def written(cfg: Any, base: str, command: str, fields: dict[str, Any]) -> str:
    """The text of a config with these fields over a base config, which it
    names so; the command is in its first line."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    imports += [] if 'mmaib' in imports else ['mmaib']
    lines = [
        f'# Made by: {command}',
        f'_base_ = {base!r}',
        f'custom_imports = {flat(dict(imports=imports))}',
        '',
        *(f'{k} = {flat(v)}' for k, v in fields.items()),
        '',
    ]
    # `randomness` is the last field
    lines.insert(-2, '# every rank draws its own noise')
    return '\n'.join(lines)


def flat(value: Any) -> str:
    """A value as it stands in a config, on one line."""
    if isinstance(value, dict):
        inner = ', '.join(f'{k}={flat(v)}' for k, v in value.items())
        return f'dict({inner})'
    if isinstance(value, list):
        return f'[{", ".join(map(flat, value))}]'
    return repr(type_path(value) if isinstance(value, type) else value)


def tidy(text: str) -> str:
    """The text of a config in lines of less than 80 columns, as far as its
    names are short."""
    style = '{based_on_style: facebook, column_limit: 79}'
    return FormatCode(text, style_config=style)[0]
