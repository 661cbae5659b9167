"""A host's config: its model, and what that gives for an image."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmaib.compat import register_config_sources
from mmaib.losses import Reporter
from mmaib.models import AuxLossMixin

NEW_STYLE = re.compile(r'^with read_base\(\)', re.M)
SIZES = {'mmdet': (640, 640), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}


class WrapError(ValueError):
    """Why a config gets no attention, and what one can do."""


def host_of(model: nn.Module) -> str | None:
    """Which host a model is of, or its parent classes are: the config's
    ``default_scope`` may name another."""
    return next(filter(None, map(_host, type(model).__mro__)), None)


def host_class(part: Any) -> str:
    """Name of a part's class if it is a host's own, not a user's of that
    name; else an empty one."""
    kind = type(part)
    return kind.__name__ if _host(kind) else ''


def _host(kind: type) -> str | None:
    package = kind.__module__.partition('.')[0]
    return package if package in SIZES else None


@dataclass
class Seen:
    """What a host's model gives for an image.

    Attributes:
        model: itself.
        size: of that image.
        backbone, neck: what they give; None without a neck.
        inside: ``{name: what it gives}`` of the blocks of the backbone, as
            they ran.
    """

    model: Any
    size: tuple[int, int]
    backbone: Any = None
    neck: Any = None
    inside: dict[str, Any] = field(default_factory=dict)


def load(name: str) -> Any:
    """A config by its path, or by its name ``mmdet::...``.

    Raises:
        WrapError: if there is none of that name, or it cannot be read.
    """
    register_config_sources()
    if '::' in name:
        try:
            return get_config(name)
        except FileNotFoundError as error:
            raise WrapError(f'{name}: {error}') from error
    if not Path(name).is_file():
        raise WrapError(
            f'{name}: no such file. Give the path of a config, or the name '
            "of one of a host's own, such as "
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        )
    try:
        return Config.fromfile(name)
    except Exception as error:
        raise WrapError(
            f'{name} cannot be read: {type(error).__name__}: {error}'
        ) from error


def build(cfg: Any) -> Any:
    """The model of a config, uninitialised and without SyncBN."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:  # as the Runner does
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with MODELS.switch_scope_and_registry(None) as registry:
        return revert_sync_batchnorm(registry.build(model)).eval()


def check_style(cfg: Any) -> None:
    """Refuse a config that no `_base_` can name.

    Raises:
        WrapError: telling what to take instead.
    """
    kind = (cfg.get('model') or {}).get('type')
    path = Path(cfg.filename or '')
    if not isinstance(kind, str) or (
        path.suffix == '.py' and NEW_STYLE.search(path.read_text())
    ):
        raise WrapError(
            f'model.type is {kind!r}: this is no model, or a config of '
            "MMEngine's new style (`with read_base()`), which no `_base_` "
            "can name. Take the host's config of the old style"
        )


def check_host(cfg: Any, model: nn.Module) -> None:
    """Refuse what is no host's model, or has parts of ours.

    Raises:
        WrapError: saying which.
    """
    ours = [
        f'{name or "model"} ({type(module).__name__})'
        for name, module in model.named_modules()
        if isinstance(module, (AuxLossMixin, Reporter))
    ]
    if ours:
        raise WrapError(
            f'this config is ours already: it has {ours[0]}. Change its '
            'fields (docs/fields.md), or wrap the host config that it is over'
        )
    missing = [
        part
        for part in ('backbone', 'extract_feat', 'loss')
        if not hasattr(model, part)
    ]
    if missing:
        inner = [k for k, v in cfg.model.items() if isinstance(v, dict)]
        raise WrapError(
            f'{type(model).__name__} has no {" and no ".join(missing)}, so '
            'where its features pass cannot be told. Wrap the config of the '
            f'model inside it (its parts: {inner}) and train that: what '
            'stands around it may run the parts where no loss is collected'
        )


def image_size(cfg: Any, model: nn.Module) -> tuple[int, int]:
    """Height and width of images that the model of a config takes."""
    size = cfg.model.backbone.get('img_size')
    processor = cfg.model.get('data_preprocessor') or {}
    size = size or processor.get('size') or cfg.get('crop_size')
    if size is None:
        return SIZES[host_of(model) or 'mmseg']
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def blank_image(model: Any, size: tuple[int, int]) -> Tensor:
    """``(1, 3, H, W)``, or of one channel where the first layer takes
    one."""
    convs = (m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    first = next(convs, None)
    gray = first is not None and first.in_channels == 1
    return torch.zeros(1, 1 if gray else 3, *size)


@torch.no_grad()
def look(model: Any, size: tuple[int, int]) -> Seen:
    """Show the model an image and note what its parts give."""
    seen = Seen(model, size)

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            if name in ('backbone', 'neck'):
                setattr(seen, name, out)
            else:
                seen.inside[name] = out

        return hook

    named = [(n, getattr(model, n, None)) for n in ('backbone', 'neck')]
    named += list(_blocks(model.backbone))
    with ExitStack() as handles:
        for name, module in named:
            if module is not None:
                handle = module.register_forward_hook(note(name))
                handles.callback(handle.remove)
        try:
            model.extract_feat(blank_image(model, size))
        except Exception as error:
            raise WrapError(
                f'{type(model).__name__} takes no image of {size[0]}x'
                f'{size[1]}, so what its parts give cannot be seen: '
                f'{type(error).__name__}: {error}'
            ) from error
    return seen


def _blocks(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Blocks or stages of a backbone: what stands in its lists of modules,
    and in lists of lists."""
    for name, part in backbone.named_children():
        if isinstance(part, (nn.ModuleList, nn.Sequential)):
            for index, block in part.named_children():
                if not isinstance(block, nn.ModuleList):
                    yield f'{name}.{index}', block
        if isinstance(part, nn.ModuleList):
            for inner, block in _blocks(part):
                yield f'{name}.{inner}', block


def are_maps(features: Any) -> bool:
    """Whether they are maps that a neck of ours can attend."""
    levels = [features] if isinstance(features, Tensor) else features
    return (
        isinstance(levels, (list, tuple))
        and len(levels) > 0
        and all(isinstance(x, Tensor) and x.dim() == 4 for x in levels)
        and any(x.shape[2:].numel() > 1 for x in levels)
    )


def described(features: Any) -> str:
    """Features as a reader knows them."""
    if isinstance(features, Tensor):
        return str(tuple(features.shape))
    if isinstance(features, (list, tuple)):
        inner = ', '.join(described(x) for x in features)
        return f'({inner})'
    return f'a {type(features).__name__}'
