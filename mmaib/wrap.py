"""``python -m mmaib wrap HOST_CONFIG --out my_config.py``: attention in any
host's config, as a short config over it.

The host's model is built and shown an image, to see what its backbone and its
neck give; from that follows where attention can stand. What was written is
loaded and built before it is called done.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ATTENTIONS = ('gate', 'aib', 'aib-qt')
PLACES = ('before', 'after')
# the host's classes that we have one of our own for
MODELS_OF_OURS = {
    'CascadeRCNN': 'mmaib.AIBCascadeRCNN',
    'FasterRCNN': 'mmaib.AIBFasterRCNN',
    'MaskRCNN': 'mmaib.AIBFasterRCNN',
    'EncoderDecoder': 'mmaib.AIBEncoderDecoder',
    'ImageClassifier': 'mmaib.AIBImageClassifier',
}
# those that average draws
ROI_HEADS = {
    'CascadeRoIHead': 'mmaib.AIBCascadeRoIHead',
    'StandardRoIHead': 'mmaib.AIBRoIHead',
}
# the hosts' heads with a stochastic form of ours
LATENT_HEADS: dict[str, dict[str, Any]] = {
    'Shared2FCBBoxHead': dict(type='mmaib.AIBShared2FCBBoxHead'),
    'UPerHead': dict(type='mmaib.AIBUPerHead'),
    'LinearClsHead': dict(
        type='mmaib.AIBClsHead', latent_channels=None, decoder='linear'
    ),
}
SIZES = {'mmdet': (640, 640), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}


class WrapError(ValueError):
    """Why a config gets no attention, and what one can do."""


class Expression(str):
    """What stands in the written config as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


@dataclass
class Plan:
    """What is written over a host's config.

    Attributes:
        model: fields of the model.
        did: what changes, a sentence each.
    """

    model: dict[str, Any]
    did: list[str] = field(default_factory=list)


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


# What a host's config says


def load(name: str) -> Any:
    """A config by its path, or by its name ``mmdet::...``.

    Raises:
        WrapError: if there is none of that name.
    """
    from mmengine.config import Config
    from mmengine.hub import get_config

    from mmaib.compat import register_config_sources

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
    return Config.fromfile(name)


def build(cfg: Any) -> Any:
    """The model of a config, uninitialised and without SyncBN."""
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:  # as the Runner does
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with MODELS.switch_scope_and_registry(None) as registry:
        return revert_sync_batchnorm(registry.build(model)).eval()


def check_host(cfg: Any, model: nn.Module) -> None:
    """Refuse what is no host's model, or has parts of ours.

    Raises:
        WrapError: saying which.
    """
    from mmaib.aux_losses import AuxLossMixin, Reporter

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
    if not isinstance(cfg.model.get('type'), str):
        raise WrapError(
            f'model.type is {cfg.model.get("type")!r}, no string: this is a '
            "config of MMEngine's new style, which has no `_base_`. Take the "
            "host's config of the same name outside of its folder `configs`"
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
            f'model inside it (its parts: {inner}) and put that in'
        )


def image_size(cfg: Any) -> tuple[int, int]:
    """Height and width of images that the model of a config takes."""
    size = cfg.model.backbone.get('img_size')
    processor = cfg.model.get('data_preprocessor') or {}
    size = size or processor.get('size') or cfg.get('crop_size')
    if size is None:
        return SIZES.get(cfg.get('default_scope'), SIZES['mmseg'])
    return (size, size) if isinstance(size, int) else (size[0], size[1])


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
        model.extract_feat(torch.zeros(1, 3, *size))
    return seen


def _blocks(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Blocks or stages of a backbone: what stands in its lists of modules."""
    for name, part in backbone.named_children():
        if isinstance(part, (nn.ModuleList, nn.Sequential)):
            for index, block in part.named_children():
                yield f'{name}.{index}', block


# Where attention stands


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


def bottleneck(attention: str, latent: bool) -> dict[str, Any]:
    """The bottleneck of a kind of attention, as our sample configs have it
    or, without a gate, starting as the host."""
    if attention == 'gate':
        return dict(
            attention=dict(mean_bias=1.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.02),
        )
    fields: dict[str, Any] = dict(
        attention=dict(logit_norm=True), modulation=dict(init='identity')
    )
    if attention == 'aib-qt':
        fields['quantizer'] = dict(num_anchors=20)
    if not latent:  # the only Gaussian left is the map
        fields['beta'] = 0.001
    return fields


def plan(
    cfg: Any,
    seen: Seen,
    attention: str = 'gate',
    where: str | None = None,
    latent: bool = False,
    at: str | None = None,
) -> Plan:
    """Fields that put attention into the model of a config.

    Args:
        cfg: the host's config.
        seen: of :func:`look`.
        attention: ``'gate'``, ``'aib'`` or ``'aib-qt'``.
        where: ``'before'`` or ``'after'`` the host's neck; None for after a
            detector's and before any other.
        latent: whether the head's last feature becomes stochastic.
        at: name of a module of the backbone to attend behind, in place of a
            neck.

    Raises:
        WrapError: if no place, or no latent, can be told.
    """
    host = cfg.model
    base = _last(host.type)
    made: dict[str, Any] = {}
    ours = MODELS_OF_OURS.get(base)
    made['type'] = ours or 'mmaib.WithAuxLosses'
    if not ours:
        made['base'] = host.type
    if ours == 'mmaib.AIBEncoderDecoder':
        made['kl_on'] = (
            'latent' if latent else None if attention == 'gate' else 'map'
        )
    did = [f'model.type: {host.type} collects the losses of its layers']
    fields = bottleneck(attention, latent)
    place = None if at else _place(cfg, seen, where)
    if place:
        made['neck'] = _neck(host, seen, place, fields)
        shape = seen.backbone if place == 'before' else seen.neck
        maps = (
            'one map for all levels'
            if made['neck'].get('map') == 'shared'
            else 'a map a level'
        )
        stands = (
            f'{place} {_name(host.neck)}'
            if host.get('neck')
            else 'behind the backbone'
        )
        did.append(
            f'model.neck: {attention} {stands}, {maps}, of features '
            f'{described(shape)}'
        )
    else:
        place_inside, channels = _inside(seen, at)
        made['backbone'] = dict(
            _delete_=True,
            type='mmaib.AttendedBackbone',
            backbone=Expression('{{_base_.model.backbone}}'),
            at=place_inside,
            in_channels=channels,
            bottleneck=fields,
        )
        did.append(
            f'model.backbone: {attention} behind its {place_inside}, of '
            f'features {described(seen.inside[place_inside])}'
        )
    roi_head = _last(host.roi_head.type) if 'roi_head' in host else None
    if ours and 'neck' in made and roi_head in ROI_HEADS:
        made['roi_head'] = dict(type=ROI_HEADS[roi_head])
        did.append(
            'model.roi_head: averages the maps that test_draws asks for'
        )
    if latent:
        did.append(_add_latent(host, seen.model, made))
    return Plan(made, did)


def _last(name: str) -> str:
    """A registered name without its scope."""
    return name.rpartition('.')[2]


def _name(neck: Any) -> str:
    necks = neck if isinstance(neck, (list, tuple)) else [neck]
    return ' and '.join(str(part['type']) for part in necks)


def _place(cfg: Any, seen: Seen, where: str | None) -> str | None:
    """``'before'``, ``'after'``, or None where neither has maps."""
    found = {
        'before': are_maps(seen.backbone),
        'after': are_maps(seen.neck),
    }
    if not cfg.model.get('neck'):
        found['after'] = found['before']
        where = 'before'
    if where:
        if not found[where] and where == 'after':
            raise WrapError(
                f'the neck {_name(cfg.model.neck)} gives '
                f'{described(seen.neck)}: no tuple of maps (N, C, H, W), so '
                'what stands after it cannot be told. Take --where before'
            )
        return where if found[where] else None
    first = 'after' if cfg.get('default_scope') == 'mmdet' else 'before'
    second = 'before' if first == 'after' else 'after'
    for place in (first, second):
        if found[place]:
            return place
    return None


def _neck(host: Any, seen: Seen, place: str, fields: dict) -> dict[str, Any]:
    features = seen.neck if place == 'after' and host.get('neck') else None
    features = seen.backbone if features is None else features
    levels = [features] if isinstance(features, Tensor) else list(features)
    channels = [x.size(1) for x in levels]
    made: dict[str, Any] = {}
    if 'neck' in host:
        made['_delete_'] = True
    made['type'] = 'mmaib.AIBNeck'
    if host.get('neck'):
        made['neck'] = Expression('{{_base_.model.neck}}')
        made['where'] = place
    shared = len(levels) > 1 and (place == 'before' or len({*channels}) > 1)
    if shared:
        made['map'] = 'shared'
        made['map_level'] = _level_at(levels, seen.size, stride=16)
    if shared or _told_levels(host, place) != channels:
        made['in_channels'] = channels
    made['bottleneck'] = fields
    return made


def _level_at(levels: list[Tensor], size: tuple[int, int], stride: int) -> int:
    """The level of about that stride, the last of several."""
    away = [
        abs(math.log2(size[0] / x.size(2) / stride)).__round__(2)
        for x in levels
    ]
    return max(i for i, value in enumerate(away) if value == min(away))


def _told_levels(host: Any, place: str) -> list[int] | None:
    """Channels that an AIBNeck reads from the host's neck by itself."""
    from mmaib.layers import AIBNeck

    if not host.get('neck'):
        return None
    try:
        return AIBNeck({}, copy.deepcopy(host.neck), place).level_channels
    except ValueError:
        return None


def _inside(seen: Seen, at: str | None) -> tuple[str, int]:
    """A block of the backbone to attend behind, and its channels."""
    from mmaib.layers.attended_backbone import token_grid

    found: dict[str, int] = {}
    for name, out in seen.inside.items():
        if not isinstance(out, Tensor):
            continue
        if out.dim() == 4 and out.shape[2:].numel() > 1:
            found[name] = out.size(1)
        elif out.dim() == 3:
            try:
                token_grid(out.size(1), seen.size)
            except ValueError:
                continue
            found[name] = out.size(2)
    if at is not None:
        if at not in found:
            raise WrapError(
                f'--at {at}: no block of the backbone of that name gives a '
                f'map or tokens; those that do: {[*found]}'
            )
        return at, found[at]
    if not found:
        raise WrapError(
            f'neither the backbone, which gives {described(seen.backbone)}, '
            f'nor the neck, which gives {described(seen.neck)}, nor a block '
            'inside gives maps (N, C, H, W), so where attention could stand '
            'cannot be told. Have the backbone give its feature maps '
            '(out_indices, out_type), or write an mmaib.AttendedBackbone'
        )
    names = [*found]
    last = names[-1]
    if seen.inside[last].dim() == 3 and len(names) > 1:
        # behind the last block a class token no longer sees the patches
        last = names[-2]
    return last, found[last]


def _add_latent(host: Any, model: Any, made: dict[str, Any]) -> str:
    """Put the latent of the head into ``made``; what to say of it."""
    if 'roi_head' in host:
        field, owner, part = 'bbox_head', host.roi_head, model.roi_head
        target = made.setdefault('roi_head', {})
    else:
        owner, part, target = host, model, made
        fields = ('decode_head', 'bbox_head', 'head')
        field = next((f for f in fields if owner.get(f)), '')
    head = owner.get(field)
    if not head or not hasattr(part, field):
        raise WrapError(
            f'--latent: {host.type} has none of the heads that are known '
            'here, bbox_head, decode_head and head'
        )
    built = getattr(part, field)
    if isinstance(head, (list, tuple)):
        # each stage of boxes, the last of segmentations; a list is replaced
        # as a whole
        first = len(head) - 1 if field == 'decode_head' else 0
        target[field] = [
            {**one.to_dict(), **(_latent(one, b) if i >= first else {})}
            for i, (one, b) in enumerate(zip(head, built))
        ]
    else:
        target[field] = _latent(head, built)
    return f'model {field}: its last features are latents'


def _latent(head: Any, built: nn.Module) -> dict[str, Any]:
    """Fields that make the last feature of a head stochastic."""
    from mmaib.layers.with_latent import predictors

    name = _last(head['type'])
    if name in LATENT_HEADS:
        return dict(LATENT_HEADS[name])
    try:
        predictors(built)
    except ValueError as error:
        raise WrapError(
            f'--latent: {error}. Without --latent any head works'
        ) from error
    return dict(type='mmaib.WithLatent', base=head['type'])


# What is written


def hooks(cfg: Any, attention: str) -> tuple[dict[str, Any], str | None]:
    """Entries of ``default_hooks``, and what to say of them. Not of
    ``custom_hooks``, a list that would replace the host's own."""
    made: dict[str, Any] = {}
    said = None
    if attention == 'gate':
        train = cfg.get('train_cfg') or {}
        epochs, iterations = train.get('max_epochs'), train.get('max_iters')
        warmup: dict[str, Any] = dict(type='mmaib.BetaWarmupHook')
        if iterations:
            warmup['end'] = max(1, iterations // 2)
        elif epochs and epochs > 3:
            warmup.update(end=epochs // 2, by_epoch=True)
        else:
            warmup['end'] = 500
            said = (
                'default_hooks.gate.end: 500 iterations; half of your '
                'training is what was measured'
            )
        made['gate'] = warmup
        made['attention'] = dict(
            type='mmaib.AttentionEvalHook',
            causal=['mirror', 'flatten', 'shuffle'],
        )
    return made, said


def written(
    cfg: Any, base: str, command: str, model: dict, default_hooks: dict
) -> str:
    """The text of the config."""
    imports = list((cfg.get('custom_imports') or {}).get('imports') or [])
    imports += [] if 'mmaib' in imports else ['mmaib']
    randomness: dict[str, Any]
    parts = [
        f'# Made by: {command}',
        f'_base_ = {base!r}',
        f'custom_imports = {formatted(dict(imports=imports))}',
        '',
        f'model = {formatted(model)}',
    ]
    if default_hooks:
        parts.append(f'default_hooks = {formatted(default_hooks)}')
    randomness = dict(diff_rank_seed=True)
    if not cfg.get('randomness'):
        randomness = dict(seed=None, **randomness)
    parts.append('# every rank draws its own noise')
    parts.append(f'randomness = {formatted(randomness)}')
    return '\n'.join([*parts, ''])


def formatted(value: Any, indent: int = 0, room: int = 70) -> str:
    """A value as it stands in a config, in lines of about 79 columns."""
    if isinstance(value, dict):
        flat = ', '.join(
            f'{k}={formatted(v, 0, 10_000)}' for k, v in value.items()
        )
        if len(flat) + indent <= room:
            return f'dict({flat})'
        pad = ' ' * (indent + 4)
        lines = [
            f'{pad}{k}={formatted(v, indent + 4, room - len(k))}'
            for k, v in value.items()
        ]
        return 'dict(\n' + ',\n'.join(lines) + ')'
    if isinstance(value, (list, tuple)) and any(
        isinstance(x, dict) for x in value
    ):
        pad = ' ' * (indent + 4)
        lines = [f'{pad}{formatted(x, indent + 4, room)}' for x in value]
        return '[\n' + ',\n'.join(lines) + ']'
    return repr(value)


# What it costs


@contextmanager
def _counting() -> Iterator[Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield counter


def cost(model: Any, size: tuple[int, int]) -> tuple[float, float]:
    """Parameters in 1e6, and multiply-adds of backbone and neck for an image
    of that size in 1e9."""
    with _counting() as counter:
        model.extract_feat(torch.zeros(1, 3, *size))
    parameters = sum(p.numel() for p in model.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e9


def compare(model: nn.Module, path: str) -> tuple[list[str], bool]:
    """What a checkpoint of the host has for the model, and whether nothing
    of the host's is missing, unknown or of another shape."""
    from mmaib.reliability.checkpoint import read_checkpoint

    read = read_checkpoint(path)
    state = {
        k.removeprefix('module.'): v
        for k, v in read.get('state_dict', read).items()
        if isinstance(v, Tensor)
    }
    wanted = model.state_dict()
    other = []
    for key, value in wanted.items():
        theirs = key.replace('neck.neck.', 'neck.', 1)
        for name in {key, theirs} & state.keys():
            if state[name].shape != value.shape:
                other.append(
                    f'{name}: {tuple(state[name].shape)}, the model has '
                    f'{tuple(value.shape)}'
                )
                del state[name]
    result = model.load_state_dict(state, strict=False)
    shapes = {line.partition(':')[0] for line in other}
    missing = [
        k
        for k in result.missing_keys
        if k.replace('neck.neck.', 'neck.', 1) not in shapes
    ]
    ours = [k for k in missing if is_ours(model, k)]
    theirs_missing = [k for k in missing if not is_ours(model, k)]
    unknown = list(result.unexpected_keys)
    loaded = len(wanted) - len(result.missing_keys)
    lines = [
        f'{loaded} tensors of the host loaded, {len(ours)} of ours start anew'
    ]
    for title, keys in (
        ("missing of the host's", theirs_missing),
        ('unknown to the model', unknown),
        ('of another shape', other),
    ):
        if keys:
            more = f' and {len(keys) - 5} more' if len(keys) > 5 else ''
            lines.append(f'{title}: {", ".join(keys[:5])}{more}')
    return lines, not (theirs_missing or unknown or other)


def is_ours(model: nn.Module, key: str) -> bool:
    """Whether a key is of a layer of ours inside the model."""
    from mmaib.aux_losses import Reporter

    name = key
    while '.' in name:
        name = name.rpartition('.')[0]
        if isinstance(model.get_submodule(name), Reporter):
            return True
    return False


def wrap(
    host: str,
    out: str | Path,
    attention: str = 'gate',
    where: str | None = None,
    latent: bool = False,
    at: str | None = None,
    check: str | None = None,
    command: str = 'python -m mmaib wrap',
) -> tuple[list[str], bool]:
    """Write a config with attention over a host's.

    Args:
        host: path of a config, or the name of a host's own,
            ``'mmdet::...'``.
        out: file to write; it must not be there yet.
        attention, where, latent, at: see :func:`plan`.
        check: path of a checkpoint of the host's to try.
        command: that the file's first line names.

    Returns:
        what to print, and whether the checkpoint, if any, is the host's.

    Raises:
        WrapError: with the reason; nothing is left behind.
    """
    out = Path(out)
    if out.exists():
        raise WrapError(f'{out} is there already: name another file')
    cfg = load(host)
    if 'model' not in cfg:
        raise WrapError(f'{host} has no model')
    plain = build(cfg)
    check_host(cfg, plain)
    size = image_size(cfg)
    planned = plan(cfg, look(plain, size), attention, where, latent, at)
    default_hooks, said = hooks(cfg, attention)
    base = host
    if '::' not in host:
        base = os.path.relpath(host, out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(written(cfg, base, command, planned.model, default_hooks))
    try:
        model = build(load(str(out)))
        costs = [cost(m, size) for m in (plain, model)]
        lines = [f'wrote {out}', *planned.did]
        if default_hooks:
            types = [hook['type'] for hook in default_hooks.values()]
            lines.append(f'default_hooks: {", ".join(types)}')
        lines += [said] if said else []
        heads = [k for k in cfg.model if k.endswith('head')]
        left = [k for k in ('backbone', *heads) if k not in planned.model]
        lines.append(
            f"left alone: the host's {', '.join(left)}, data, schedule, "
            'optimizer, checkpoint keys'
        )
        (before, macs), (after, more) = costs
        lines.append(
            f'parameters: {before:.2f} M -> {after:.2f} M; multiply-adds of '
            f'backbone and neck at {size[0]}x{size[1]}: {macs:.2f} G -> '
            f'{more:.2f} G'
        )
        good = True
        if check:
            report, good = compare(model, check)
            lines += [f'{check}: {line}' for line in report]
    except BaseException:
        out.unlink()
        raise
    return lines, good


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        'python -m mmaib wrap',
        description='Write a short config with attention over a host config.',
    )
    parser.add_argument('config', help='path, or a name such as mmdet::...')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--attention', choices=ATTENTIONS, default='gate')
    parser.add_argument('--latent', action='store_true')
    parser.add_argument('--where', choices=PLACES)
    parser.add_argument(
        '--at', help='block of the backbone to attend behind, no neck'
    )
    parser.add_argument(
        '--check', metavar='CHECKPOINT', help="the host's, to compare keys"
    )
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    command = ' '.join(['python -m mmaib wrap', *argv])
    try:
        lines, good = wrap(
            args.config,
            args.out,
            args.attention,
            args.where,
            args.latent,
            args.at,
            args.check,
            command,
        )
    except WrapError as error:
        print(f'wrap: {error}', file=sys.stderr)
        return 2
    print('\n'.join(lines))
    return 0 if good else 1
