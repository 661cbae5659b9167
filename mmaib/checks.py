"""Errors for what users write in a config: the field, what came, what fits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def one_of(field: str, value: Any, choices: Collection[Any]) -> Any:
    """``value``, if it is among ``choices``.

    Raises:
        ValueError: otherwise.
    """
    if value not in choices:
        raise ValueError(
            f'{field} must be one of {sorted(choices, key=str)}, got {value!r}'
        )
    return value


def at_least(field: str, value: Any, minimum: float) -> Any:
    """``value``, if it is a number not below ``minimum``; an integer
    minimum asks for an integer.

    Raises:
        TypeError: if it is no such number.
        ValueError: if it is below ``minimum``.
    """
    kind = int if isinstance(minimum, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = 'an integer' if kind is int else 'a number'
        raise TypeError(
            f'{field} must be {wanted} >= {minimum}, got {value!r}'
        )
    if not value >= minimum:
        raise ValueError(f'{field} must be >= {minimum}, got {value!r}')
    return value


def a_dict(field: str, value: Any) -> dict:
    """The fields of a part's config, none for None.

    Raises:
        TypeError: if ``value`` is neither a dict nor None.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(
            f'{field} must be a dict of fields or None, got {value!r}'
        )
    return value


def draws(field: str, value: Any) -> int | None:
    """Number of draws, None for ``'mean'``.

    Raises:
        ValueError: if ``value`` is neither ``'mean'`` nor a count.
    """
    if value == 'mean':
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{field} must be 'mean' or an integer >= 1, got {value!r}"
        )
    return value


def evaluation_draws(
    value: Any,
    attention: int | str | None = None,
    latent: int | str = 1,
) -> dict | None:
    """The field ``test_draws`` of our models, None for ``'mean'``.

    Args:
        value: of the field.
        attention: L_a if it is left out; None if it must not be.
        latent: L_z if it is left out.

    Raises:
        TypeError, ValueError: if it is neither ``'mean'`` nor
            ``dict(attention=L_a, latent=L_z, seed=0)``.
    """
    if value == 'mean':
        return None
    if not (
        isinstance(value, dict)
        and value
        and (attention is not None or 'attention' in value)
        and set(value) <= {'attention', 'latent', 'seed'}
    ):
        raise ValueError(
            "test_draws must be 'mean' or dict(attention=L_a, "
            f'latent=L_z, seed=0), got {value!r}'
        )
    if attention is None:
        drawn = at_least('test_draws.attention', value['attention'], 1)
    else:
        asked = value.get('attention', attention)
        drawn = draws('test_draws.attention', asked)
    return dict(
        attention=drawn,
        latent=draws('test_draws.latent', value.get('latent', latent)),
        seed=at_least('test_draws.seed', value.get('seed', 0), 0),
    )
