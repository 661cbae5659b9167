"""A base config: its model, and what that gives for an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.losses import Reporter, collect
from mmaib.models import AuxLossMixin

from .shapes import cost, valueless

SIZES = {'mmdet': (640, 640), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}


class WrapError(ValueError):
    """Why a config gets no attention, and what one can do."""


def library_of(model: nn.Module) -> str | None:
    """Which base library a model is of, or its parent classes are: the
    config's ``default_scope`` may name another."""
    return next(filter(None, map(_library, type(model).__mro__)), None)


def library_class(part: Any) -> str:
    """Name of a part's class if it is a base library's own, not a user's of
    that name; else an empty one."""
    kind = type(part)
    return kind.__name__ if _library(kind) else ''


def _library(kind: type) -> str | None:
    package = kind.__module__.partition('.')[0]
    return package if package in SIZES else None


@dataclass
class Seen:
    """What a base model gives for an image.

    Attributes:
        model: itself.
        size: of that image.
        image: itself, blank.
        backbone, neck: what they give; None without a neck.
        parts: ``{name: what it gives}`` of all modules of the backbone, as
            they ran.
        inside: of its blocks.
        steady: whether the backbone gives as many features in training.
        cost: a Cost, of that.
    """

    model: Any
    size: tuple[int, int]
    image: Tensor
    backbone: Any = None
    neck: Any = None
    parts: dict[str, Any] = field(default_factory=dict)
    inside: dict[str, Any] = field(default_factory=dict)
    steady: bool = True
    cost: Any = None


def folder_scope(cfg: Any) -> dict[str, str]:
    """The ``default_scope`` of a config that has none, as some of the base
    libraries' own, by the folder that it is in."""
    found = [x for x in Path(str(cfg.filename)).parts if x in SIZES]
    return {'default_scope': found[-1]} if found else {}


def part_of(
    cfg: Any, model: nn.Module, inside: str | None = None
) -> tuple[str | None, nn.Module]:
    """What of a model takes attention: itself, or the model inside it, such
    as a tracker's detector or a semi-supervised detector's student, and its
    field. Without ``inside``, such a field, it is the detector, or the only
    one, if the model has no features of its own.

    Raises:
        WrapError: if there is none, or it contains mmaib already.
    """
    ours = [
        f'{name or "model"} ({type(module).__name__})'
        for name, module in model.named_modules()
        if isinstance(module, (AuxLossMixin, Reporter))
    ]
    if ours:
        raise WrapError(
            f'this config already contains mmaib ({ours[0]}). Edit its '
            'fields (docs/fields.md), or wrap the original config'
        )
    if inside is None and not _lacks(model):
        return None, model
    parts = {
        field: inner(model, field)
        for field, value in cfg.model.items()
        if isinstance(value, dict)
    }
    found = {field: part for field, part in parts.items() if not _lacks(part)}
    if inside is None and 'detector' in found:  # of trackers with a ReID
        inside = 'detector'
    elif inside is None and len(found) == 1:
        (inside,) = found
    if inside in found:
        return inside, found[inside]
    if inside:
        raise WrapError(
            f'--inside {inside}: no model with backbone, extract_feat and '
            f'loss; there are {[*found]}'
        )
    raise WrapError(
        f'{type(model).__name__} has no {" and no ".join(_lacks(model))}, so '
        f'where its features pass is unknown, and of its parts {[*parts]} '
        + (f'several have: --inside {[*found]}' if found else 'none has them')
    )


def inner(model: nn.Module, field: str) -> Any:
    """The model that a field of another's config builds."""
    return getattr(model, field, getattr(model, 'student', None))


def _lacks(model: Any) -> list[str]:
    """What a model needs and has not."""
    return [
        part
        for part in ('backbone', 'extract_feat', 'loss')
        if not hasattr(model, part)
    ]


def image_size(base_model: Any, model: nn.Module, cfg: Any) -> tuple[int, int]:
    """Height and width of images that the model of a config takes."""
    size = base_model.backbone.get('img_size')
    processor = base_model.get('data_preprocessor') or {}
    size = size or processor.get('size') or cfg.get('crop_size')
    if size is None and library_of(model) == 'mmpretrain':
        size = _tested_size(cfg)
    if size is None:
        return SIZES[library_of(model) or 'mmseg']
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _tested_size(cfg: Any) -> Any:
    """The last size that the test pipeline makes, such as LeNet's 32."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    sizes = [
        step.get('crop_size') or step.get('scale')
        for step in dataset.get('pipeline') or ()
    ]
    return next(filter(None, reversed(sizes)), None)


def blank_image(model: Any, size: tuple[int, int]) -> Tensor:
    """``(1, C, H, W)``, of as many bands as the model takes."""
    return torch.zeros(1, _bands(model, size), *size)


class _Reached(BaseException):
    """The first layer with a width of its own."""


def _bands(model: Any, size: tuple[int, int]) -> int:
    """As many as are normalised, else three; times what the first layer that
    runs takes over what it is given then: a stem may fold pixels into
    channels, a data preprocessor may append bands."""
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    shown = mean.numel() if isinstance(mean, Tensor) else 3
    shown = shown if shown > 1 else 3  # one value is for all bands
    found = shown

    def reach(layer: Any, inputs: tuple) -> None:
        nonlocal found
        is_norm = isinstance(layer, _BatchNorm)
        takes = layer.num_features if is_norm else layer.in_channels
        found = shown * takes // inputs[0].size(1)
        raise _Reached

    with ExitStack() as handles, suppress(Exception, _Reached):
        for layer in model.backbone.modules():
            if isinstance(layer, (nn.Conv2d, _BatchNorm)):
                handles.enter_context(layer.register_forward_pre_hook(reach))
        cost(model, torch.zeros(1, shown, *size))
    return found


def look(model: Any, size: tuple[int, int]) -> Seen:
    """Show the model an image and note what its parts give."""
    seen = Seen(model, size, blank_image(model, size))
    found: dict[str, Any] = {}

    def note(name: str, _: nn.Module, __: Any, out: Any) -> None:
        found[name] = out

    backbone = model.backbone
    named = [
        ('neck', getattr(model, 'neck', None)),
        *backbone.named_modules(prefix='backbone', remove_duplicate=False),
    ]
    try:
        with ExitStack() as handles:
            for name, module in named:
                if module is not None:
                    noted = module.register_forward_hook(partial(note, name))
                    handles.enter_context(noted)
            seen.cost = cost(model, seen.image)
    except Exception as error:
        raise WrapError(
            f'{type(model).__name__} takes no image of {size[0]}x'
            f'{size[1]}, so what its parts give cannot be seen: '
            f'{type(error).__name__}: {error}'
        ) from error
    seen.backbone = found.pop('backbone', None)
    seen.neck = found.pop('neck', None)
    seen.parts = {k.removeprefix('backbone.'): v for k, v in found.items()}
    blocks = dict([*deeper(backbone), *_blocks(backbone)])
    seen.inside = {k: v for k, v in seen.parts.items() if k in blocks}
    model.train()
    with suppress(Exception), valueless(), collect():
        features = model.backbone(seen.image.repeat(2, 1, 1, 1))
        seen.steady = _levels(features) == _levels(seen.backbone)
    model.eval()
    return seen


def _levels(features: Any) -> int:
    return 0 if isinstance(features, Tensor) else len(features)


def outer_parts(seen: Seen, inside_blocks: bool) -> dict[str, Any]:
    """What else gives something: the parts of a backbone that learn and run
    after its blocks, or those inside its blocks."""
    blocks = dict(_blocks(seen.model.backbone))
    named = {**dict(seen.model.backbone.named_children()), **blocks}
    if inside_blocks:
        named = {
            f'{block}.{name}': part
            for block, module in blocks.items()
            for name, part in module.named_children()
        }
    order = [n for n in seen.parts if n in named and [*named[n].parameters()]]
    last = max([order.index(n) for n in order if n in blocks], default=-1)
    return {name: seen.parts[name] for name in order[last + 1 :]}


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


def deeper(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Blocks of a backbone that it has inside another, such as timm's."""
    for name, part in backbone.named_children():
        if not isinstance(part, (nn.ModuleList, nn.Sequential)):
            for inner, block in [*_blocks(part), *deeper(part)]:
                yield f'{name}.{inner}', block


def are_maps(features: Any) -> bool:
    """Whether they are maps that an AIBNeck can attend."""
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
