"""Configs of others, read without running what is in them."""

from __future__ import annotations

import ast
import re
from typing import Any

# what a config names is registered with one of these: scope.Name
SCOPES = ('mmaib', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
DOTTED = re.compile(r"'([A-Za-z_]\w*)\.([\w.]+)'")


def parse(text: str, name: str) -> dict[str, Any]:
    """A config of fields and literals.

    Raises:
        ValueError: if it holds anything else, or names what is not
            registered with mmaib or a base library.
    """
    fields = {}
    for line in ast.parse(text).body:
        try:
            (target,) = line.targets  # type: ignore[attr-defined]
            fields[target.id] = ast.literal_eval(line.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f'{name}, line {line.lineno}: not a field and a literal'
            ) from error
    for found in DOTTED.finditer(repr(fields)):
        if found[1] not in SCOPES or '.' in found[2]:
            raise ValueError(
                f'{name}: {found[0]} is not registered by {", ".join(SCOPES)}'
            )
    return fields
