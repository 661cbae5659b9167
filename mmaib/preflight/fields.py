from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


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


def evaluator_with(
    field: str, cfg: Any, loader: str
) -> Iterator[tuple[str, dict]]:
    """Those of the evaluator that belongs to a dataloader."""
    name = loader.replace('_dataloader', '_evaluator')
    return configs_with(field, cfg.get(name), name)


@contextmanager
def named(field: str) -> Iterator[None]:
    """What a ValueError is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{field}: {error}') from error


def counted(faults: Mapping[str, Sequence[Any]], total: int) -> list[str]:
    """A sentence for each fault: in how many of so many, and the first."""
    return [
        f'{len(found)} of {total} {fault} (first: {found[0]})'
        for fault, found in sorted(faults.items())
    ]


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
