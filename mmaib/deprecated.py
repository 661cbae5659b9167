"""Fields of 0.1 that 0.2 still takes, with a warning that prints the new
spelling. This file goes in 0.3, and with it its callers' lines."""

from __future__ import annotations

import warnings
from typing import Any

from mmaib.checks import one_of

LATENT_FIELDS = ('beta', 'std_shift', 'std_source')


def _warn(owner: str, old: str, new: str) -> None:
    warnings.warn(
        f'{owner}: {old} is deprecated, write {new}', FutureWarning, 3
    )


def latent_fields(
    owner: str, latent: dict | None, fields: dict[str, Any]
) -> dict | None:
    """A head's field ``latent``, with the fields of 0.1 moved into it.

    Args:
        owner: the head's type.
        latent: the field as it is.
        fields: others of the head; those of 0.1 are taken out.
    """
    moved = {k: fields.pop(k) for k in LATENT_FIELDS if k in fields}
    critic = dict(fields.pop('kl', None) or {})
    kind = critic.pop('type', None)
    if kind == 'adversarial':
        moved['critic'] = critic
    elif kind is not None:
        one_of('kl.type', kind, ('closed_form', 'adversarial'))
        moved['critic'] = None
    moved.update(fields.pop('encoder', None) or {})
    if not moved:
        return latent
    written = ', '.join(f'{k}={v!r}' for k, v in moved.items())
    _warn(
        owner,
        'beta, std_shift, std_source, kl and encoder',
        f'latent=dict({written})',
    )
    return {**moved, **(latent or {})}


def train_draws(owner: str, fields: dict[str, Any]) -> tuple[dict, dict]:
    """The fields of a model, and what `train_draws` of its parts said.

    Args:
        owner: the model's type.
        fields: of the model; not changed.

    Returns:
        the fields without `train_draws` in a part, and ``dict(attention=,
        latent=)`` of those that were there.
    """
    found: dict[str, Any] = {}

    def without(value: Any, field: str) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {
            name: without(part, name)
            for name, part in value.items()
            if name != 'train_draws'
        }
        if 'train_draws' in value:
            kind = 'attention' if field == 'bottleneck' else 'latent'
            found[kind] = value['train_draws']
        return type(value)(kept) if len(found) else value

    fields = {name: without(value, name) for name, value in fields.items()}
    if found:
        written = ', '.join(f'{k}={v!r}' for k, v in found.items())
        _warn(
            owner,
            "a part's train_draws",
            f'train_draws=dict({written}) in the model',
        )
    return fields, found


def kl_on(owner: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a segmentor, where the KL that its field `kl_on` did not
    name has a weight of 0.

    Args:
        owner: the model's type.
        fields: of the model; not changed.
    """
    if 'kl_on' not in fields:
        return fields
    fields = dict(fields)
    named = fields.pop('kl_on')
    one_of('kl_on', named, ('latent', 'map', 'both', None))
    parts = {
        'latent': ('decode_head', 'latent'),
        'map': ('neck', 'bottleneck'),
    }
    for kind, (part, name) in parts.items():
        held = fields.get(part) or {}
        if named not in (kind, 'both') and name in held:
            weightless = {**(held[name] or {}), 'beta': 0.0}
            fields[part] = {**held, name: weightless}
    new = 'their weights: decode_head.latent.beta, neck.bottleneck.beta'
    _warn(owner, f'kl_on={named!r}', new)
    return fields
