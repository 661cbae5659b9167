from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process


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


def raised_everywhere(check: Callable[..., None], *args: Any) -> None:
    """Call a check in the first process; what it raises as a ValueError, all
    of them raise, so that none waits for the others."""
    wrong: list[str | None] = [None]
    if is_main_process():
        try:
            check(*args)
        except ValueError as error:
            wrong = [str(error)]
    broadcast_object_list(wrong)
    if wrong[0] is not None:
        raise ValueError(wrong[0])
