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


def draws(field: str, value: Any, most: int | None = None) -> int | None:
    """Number of draws (at ``most`` so many), None for ``'mean'``.

    Raises:
        ValueError: if ``value`` is neither ``'mean'`` nor a count in reach.
    """
    if value == 'mean':
        return None
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or value < 1 or (most is not None and value > most):
        counts = 'an integer >= 1'
        if most is not None:
            counts += f' and <= {most}'
        raise ValueError(f"{field} must be 'mean' or {counts}, got {value!r}")
    return value
