"""The text of a config with attention over a host's."""

from __future__ import annotations

from typing import Any


def hooks(cfg: Any, attention: str) -> tuple[dict[str, Any], str | None]:
    """Entries of ``default_hooks``, and what to say of them. Not of
    ``custom_hooks``, a list that would replace the host's own."""
    made: dict[str, Any] = {}
    said = None
    if attention == 'gate':
        train = cfg.get('train_cfg') or {}
        epochs, iterations = train.get('max_epochs'), train.get('max_iters')
        warmup: dict[str, Any] = dict(type='mmaib.BetaWarmupHook')
        if iterations:
            warmup['end'] = max(1, iterations // 2)
        elif epochs and epochs > 3:
            warmup.update(end=epochs // 2, by_epoch=True)
        else:
            warmup['end'] = 500
            said = (
                'default_hooks.gate.end: 500 iterations; half of your '
                'training is what was measured'
            )
        made['gate'] = warmup
        made['attention'] = dict(
            type='mmaib.AttentionEvalHook',
            causal=['mirror', 'flatten', 'shuffle'],
        )
    return made, said


def written(
    cfg: Any, base: str, command: str, model: dict, default_hooks: dict
) -> str:
    """The text of the config."""
    imports = list((cfg.get('custom_imports') or {}).get('imports') or [])
    imports += [] if 'mmaib' in imports else ['mmaib']
    randomness: dict[str, Any]
    parts = [
        f'# Made by: {command}',
        f'_base_ = {base!r}',
        f'custom_imports = {formatted(dict(imports=imports))}',
        '',
        f'model = {formatted(model)}',
    ]
    if default_hooks:
        parts.append(f'default_hooks = {formatted(default_hooks)}')
    randomness = dict(diff_rank_seed=True)
    if not cfg.get('randomness'):
        randomness = dict(seed=None, **randomness)
    parts.append('# every rank draws its own noise')
    parts.append(f'randomness = {formatted(randomness)}')
    return '\n'.join([*parts, ''])


def formatted(value: Any, indent: int = 0, column: int = 14) -> str:
    """A value as it stands in a config, in lines of less than 80 columns as
    far as its names are short; plain values share a line.

    Args:
        value: of dicts, lists and plain types.
        indent: of the line that it begins in.
        column: where it begins.
    """
    flat = _flat(value)
    # brackets and a comma may follow
    if column + len(flat) < 74 or not _has_dicts(value):
        return flat
    inner = indent + 4
    named = isinstance(value, dict)
    items = (
        [(f'{k}=', v) for k, v in value.items()]
        if named
        else [('', v) for v in value]
    )
    lines: list[str] = []
    for name, item in items:
        text = name + formatted(item, inner, inner + len(name))
        room = 78 - inner - len(lines[-1]) if lines else 0
        if len(text) + 1 < room and not _has_dicts(item):
            lines[-1] += f' {text},'
        else:
            lines.append(f'{text},')
    body = ''.join(f'\n{" " * inner}{line}' for line in lines)[:-1]
    return f'dict({body})' if named else f'[{body}]'


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        inner = ', '.join(f'{k}={_flat(v)}' for k, v in value.items())
        return f'dict({inner})'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    return repr(value)


def _has_dicts(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(x, dict) for x in value)
    )
