from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def configs_with(
    field: str, cfg: Any, path: str
) -> Iterator[tuple[str, dict]]:
    """Every config below ``cfg`` that sets ``field``, wrapped ones and lists
    included, with the path that --cfg-options knows it by."""
    if isinstance(cfg, dict):
        if cfg.get(field):
            yield path, cfg
        for key, value in cfg.items():
            yield from configs_with(field, value, f'{path}.{key}')
    elif isinstance(cfg, (list, tuple)):
        for i, value in enumerate(cfg):
            yield from configs_with(field, value, f'{path}.{i}')
