"""Errors for what users write in a config: the field, what came, what fits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def level_channels(value: int | Sequence[int]) -> list[int]:
    """``in_channels``, one number or one a level, as a list.

    Raises:
        TypeError, ValueError: if one is no integer above 0.
    """
    values = [value] if isinstance(value, int) else value
    return [at_least('in_channels', channels, 1) for channels in values]


def part_fields(field: str, value: Any, owned: Collection[str] = ()) -> dict:
    """The fields of a part's config, none for None.

    Args:
        field: that holds the config.
        value: of it.
        owned: fields that the part's owner sets.

    Raises:
        TypeError: if ``value`` is neither a dict nor None.
        ValueError: if it sets a field of its owner's.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(
            f'{field} must be a dict of fields or None, got {value!r}'
        )
    if taken := {name: value[name] for name in owned if name in value}:
        raise ValueError(
            f'{field} sets {taken}, which its owner does: leave it out there'
        )
    return value
