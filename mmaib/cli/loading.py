"""Configs by path or name, and their models, as every command loads them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import checkpoint as checkpoints
from mmengine.utils import get_installed_path

from mmaib.compat import PACKAGES, config_name, register_config_sources
from mmaib.preflight import load_whole

from .cfg_options import options_of

PARSING = Lock()


def reader(name: str) -> Callable[[], Config]:
    """What reads a config by its path, or by its name ``mmdet::...``.

    Raises:
        ValueError: if there is none of that name.
    """
    register_config_sources()
    parse = partial(Config.fromfile, name)
    if '::' in name:
        package = name.partition('::')[0]
        if not find_spec(package):  # MMEngine's would install it
            raise ValueError(f'{name}: {package} is not installed')
        check_name(name)
        parse = partial(get_config, config_name(name))
    elif not Path(name).is_file():
        raise ValueError(
            f'{name}: no such file. Give the path of a config, or the name '
            'of one of a base library, such as '
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        )

    def read() -> Config:
        try:
            with PARSING:  # MMEngine parses through files of its own
                return parse()
        except ModuleNotFoundError as error:
            missing = [p.problem() for p in PACKAGES if not p.installed()]
            raise ModuleNotFoundError(
                ' '.join([f'{name}: {error}.', *map(str, missing)])
            ) from error

    return read


def check_name(name: str) -> None:
    """Refuse a name ``mmdet::...`` that its package does not have.

    Raises:
        ValueError: with those that are like it.
    """
    package, _, path = name.partition('::')
    folder = Path(get_installed_path(package), '.mim', 'configs')
    named = (folder / path, folder / f'{path}.py')
    if not folder.is_dir() or any(file.is_file() for file in named):
        return
    stem = Path(path).stem
    there = {p.stem: p.relative_to(folder) for p in folder.rglob('*.py')}
    like = get_close_matches(stem, there, 3, 0.7)
    # those in a folder of that name first
    ordered = sorted(there, key=lambda s: (there[s].parts[0] != stem, s))
    like += [other for other in ordered if other.startswith(stem)]
    near = ', '.join(
        f'{package}::{there[other]}' for other in [*dict.fromkeys(like)][:3]
    )
    raise ValueError(
        f'{name}: no such config in {folder}'
        + (f'; near: {near}' * bool(near))
    )


def read_config(name: str | Path, options: Sequence[str] = ()) -> Config:
    """A config by its path or name, with options as ``--cfg-options`` has
    them.

    Raises:
        ValueError: if there is none of that name, or it cannot be read.
    """
    read = reader(str(name))
    try:
        cfg = read()
    except Exception as error:
        raise ValueError(
            f'{name} cannot be read: {type(error).__name__}: {error}'
        ) from error
    cfg.merge_from_dict(options_of(options))
    return cfg


def build_model(cfg: Any) -> Any:
    """The model of a config, uninitialised, without SyncBN and weights."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    _leave_alone(model)
    unread = patch.multiple(
        checkpoints,
        _load_checkpoint=lambda *_, **__: {},
        _load_checkpoint_to_model=lambda *_, **__: None,
    )
    if 'data_preprocessor' in cfg:  # as the Runner does
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with MODELS.switch_scope_and_registry(None) as registry, unread:
        built = revert_sync_batchnorm(registry.build(model))
    built.eval()  # of which some give None
    return built


def _leave_alone(part: Any) -> None:
    """Leave out timm's weights and the processes that some models look for
    while they are built, and find the teachers that some read."""
    if isinstance(part, (list, tuple)):
        for item in part:
            _leave_alone(item)
    elif isinstance(part, dict):
        teacher = str(part.get('teacher_config', ''))
        if teacher.startswith('configs/') and not Path(teacher).exists():
            # where training starts, in the base library's checkout
            place = Path(get_installed_path('mmdet'), '.mim')
            part['teacher_config'] = str(place / teacher)
        if part.get('pretrained') is True:  # timm's
            part['pretrained'] = False
        if str(part.get('type')) in ('SyncBN', 'MMSyncBN'):
            part['type'] = 'BN'
        for value in part.values():
            _leave_alone(value)


def load_model(
    cfg: Config, checkpoint: str | Path, device: torch.device
) -> Any:
    """A model in evaluation mode, with ``cfg`` and ``dataset_meta``, as the
    base libraries' own functions load one."""
    model = build_model(cfg)
    loaded = load_whole('checkpoint', str(checkpoint), model)
    meta = loaded.get('meta') or {}
    legacy = {'classes': meta['CLASSES']} if 'CLASSES' in meta else {}
    model.dataset_meta = meta.get('dataset_meta') or legacy
    model.cfg = cfg
    return model.to(device)
