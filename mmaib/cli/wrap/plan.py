"""Where attention stands in a base model, as fields over its config."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from mmaib.models import AIBNeck, known
from mmaib.models.attended_backbone import token_grid
from mmaib.models.with_latent import predictors
from mmaib.registry import type_name, type_path

from .look import (
    Seen,
    WrapError,
    are_maps,
    deeper,
    described,
    library_class,
    library_of,
    outer_parts,
)

READOUT = 'readout'  # a gate, and the base model frozen
GATES = ('gate', READOUT)


class Expression(str):
    """What stands in the written config as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def bottleneck(
    attention: str,
    latent: bool,
    package: str | None = None,
    pooled: bool = False,
) -> dict[str, Any]:
    """The bottleneck of a kind of attention, as mmaib's sample configs have it
    or, without a gate, starting as the base model; ``pooled`` if all positions
    are after it."""
    if attention in GATES:
        readout = attention == READOUT
        beta = 0.3 if readout and package == 'mmseg' else 0.02
        gate: dict[str, Any] = dict(type='mmaib.InformationGate', beta=beta)
        if pooled:
            gate['rescale'] = True
        return dict(
            attention=dict(mean_bias=2.0 if readout else 1.0),
            modulation=gate,
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
    base_model: Any,
    seen: Seen,
    attention: str = 'gate',
    where: str | None = None,
    latent: bool = False,
    at: str | None = None,
    path: str = 'model',
) -> tuple[dict[str, Any], list[str]]:
    """Fields that put attention into a model, and what changes, a sentence
    each. Arguments are those of :func:`mmaib.cli.wrap.wrap`, with the model's
    config, what it gives, and where it stands in the base config.

    Raises:
        WrapError: if no place, or no latent, is found.
    """
    if latent and attention == READOUT:
        raise WrapError(
            '--latent: a readout freezes the base model, heads included, '
            'so no latent could learn. Leave it out, or take --attention gate'
        )
    ours = known.MODELS.get(library_class(seen.model))
    made: dict[str, Any] = dict(type=ours or 'mmaib.WithAuxLosses')
    if not ours:
        made['base'] = type_path(base_model.type)
    did = [
        f'{path}.type: {type_name(base_model.type)} collects auxiliary losses'
    ]
    if attention == READOUT:
        made['frozen'] = 'base'
        did.append(
            f'{path}.frozen: the map alone learns; load_from must name a '
            'checkpoint of the base model'
        )
    # several outputs in training alone: what makes the one of evaluation
    within = at or not (seen.steady or where)
    place = None if within else _place(base_model, seen, where)
    package = library_of(seen.model)
    pooled = package == 'mmpretrain' and place == 'before'
    fields = bottleneck(attention, latent, package, pooled)
    if place:
        features = seen.backbone if place == 'before' else seen.neck
        neck = _neck(base_model, features, seen.size, place, path)
        made['neck'] = {**neck, 'bottleneck': fields}
        shared = neck.get('map') == 'shared'
        maps = 'one map for all levels' if shared else 'a map a level'
        stands = 'after the backbone'
        if base_model.get('neck'):
            stands = f'{place} {_name(base_model.neck)}'
        did.append(
            f'{path}.neck: {attention} {stands}, {maps}, of features '
            f'{described(features)}'
        )
    else:
        at, channels = _inside(seen, at)
        made['backbone'] = dict(
            _delete_=True,
            type='mmaib.AttendedBackbone',
            backbone=Expression(f'{{{{_base_.{path}.backbone}}}}'),
            at=at,
            in_channels=channels,
            bottleneck=fields,
        )
        did.append(
            f'{path}.backbone: {attention} after its {at}, of features '
            f'{described(seen.inside[at])}'
        )
    kind = library_class(getattr(seen.model, 'roi_head', None))
    roi_head = known.ROI_HEADS.get(kind)
    if ours and 'neck' in made and roi_head:
        made['roi_head'] = dict(type=roi_head)
        did.append(
            f'{path}.roi_head: averages the maps that test_draws asks for'
        )
    if latent:
        did.append(_add_latent(base_model, seen.model, made))
    return made, did


def around(
    base_model: Any, model: nn.Module, field: str, planned: dict[str, Any]
) -> dict[str, Any]:
    """Fields of a model around the one that is planned for: it collects what
    runs outside of that one's loss."""
    if not hasattr(model, 'loss'):
        return {field: planned}
    kind = type_path(base_model.type)
    return {'type': 'mmaib.WithAuxLosses', 'base': kind, field: planned}


def _name(neck: Any) -> str:
    necks = neck if isinstance(neck, (list, tuple)) else [neck]
    return ' and '.join(type_name(part['type']) for part in necks)


def _place(base_model: Any, seen: Seen, where: str | None) -> str | None:
    """``'before'``, ``'after'``, or None where neither has maps."""
    found = dict(before=are_maps(seen.backbone), after=are_maps(seen.neck))
    places = ['before', 'after']
    if library_of(seen.model) == 'mmdet':
        places.reverse()
    if not base_model.get('neck'):
        places = ['before']
    elif where:
        if where == 'after' and not found[where]:
            raise WrapError(
                f'the neck {_name(base_model.neck)} gives '
                f'{described(seen.neck)}: no tuple of maps (N, C, H, W), so '
                'what stands after it is unknown. Take --where before'
            )
        places = [where]
    return next((place for place in places if found[place]), None)


def _neck(
    base_model: Any, features: Any, size: Any, place: str, path: str
) -> dict[str, Any]:
    """Fields of the neck but its bottleneck."""
    levels = [features] if isinstance(features, Tensor) else list(features)
    channels = [x.size(1) for x in levels]
    made: dict[str, Any] = {}
    if 'neck' in base_model:
        made['_delete_'] = True
    made['type'] = 'mmaib.AIBNeck'
    if base_model.get('neck'):
        made['neck'] = Expression(f'{{{{_base_.{path}.neck}}}}')
        made['where'] = place
    shared = len(levels) > 1 and (place == 'before' or len({*channels}) > 1)
    if shared:
        made['map'] = 'shared'
        made['map_level'] = _level_at(levels, size, stride=16)
    if shared or _declared_levels(base_model, place) != channels:
        made['in_channels'] = channels
    return made


def _level_at(levels: list[Tensor], size: tuple[int, int], stride: int) -> int:
    """The level of about that stride, the last of several."""

    def away(level: int) -> float:
        height = levels[level].size(2)
        return round(abs(math.log2(size[0] / height / stride)), 2)

    return min(reversed(range(len(levels))), key=away)


def _declared_levels(base_model: Any, place: str) -> list[int] | None:
    """Channels that an AIBNeck reads from the base neck by itself."""
    if not base_model.get('neck'):
        return None
    try:
        neck = copy.deepcopy(base_model.neck)
        return AIBNeck({}, neck, place).level_channels
    except ValueError:
        return None


def _inside(seen: Seen, at: str | None) -> tuple[str, int]:
    """A block of the backbone to attend after, and its channels."""
    found = _maps(seen.inside, seen) if seen.steady or at else {}
    if not found or (at and at not in found):
        # what is after the blocks, unless it has a class token
        after = outer_parts(seen, False)
        seen.inside |= after
        found |= _maps(after, seen, 0)
    if not found:  # of the block before the last, too
        seen.inside = outer_parts(seen, True)
        found = _maps(seen.inside, seen)
        kind = next(reversed(found), '').rpartition('.')[2]
        found = {k: v for k, v in found.items() if k.split('.')[-1] == kind}
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
            'is unknown. Have the backbone give its feature maps '
            '(out_indices, out_type), or write an mmaib.AttendedBackbone'
        )
    # what is deeper may be a stem's
    inner = {name for name, _ in deeper(seen.model.backbone)}
    names = [name for name in found if name not in inner] or [*found]
    last = names[-1]
    if seen.inside[last].dim() == 3 and len(names) > 1 and '.' in last:
        # after the last block a class token no longer sees the patches
        last = names[-2]
    return last, found[last]


def _maps(
    outputs: dict[str, Any], seen: Seen, extra: int | None = None
) -> dict[str, int]:
    """Channels of those that are maps, or tokens of patches, with so many
    tokens beside them."""
    found: dict[str, int] = {}
    for name, out in outputs.items():
        if not isinstance(out, Tensor) or len(out) != 1:
            continue
        if out.dim() == 4 and out.shape[2:].numel() > 1:
            found[name] = out.size(1)
        elif out.dim() == 3:
            try:
                token_grid(out.size(1), seen.size, extra)
            except ValueError:
                continue
            found[name] = out.size(2)
    return found


def _add_latent(base_model: Any, model: Any, made: dict[str, Any]) -> str:
    """Put the latent of the head into ``made``; what to print of it."""
    if 'roi_head' in base_model:
        field, owner, part = 'bbox_head', base_model.roi_head, model.roi_head
        target = made.setdefault('roi_head', {})
    else:
        owner, part, target = base_model, model, made
        fields = ('decode_head', 'bbox_head', 'head')
        field = next((f for f in fields if owner.get(f)), '')
    head = owner.get(field)
    if not head or not hasattr(part, field):
        raise WrapError(
            f'--latent: {type_name(base_model.type)} has none of the heads '
            'that are known: bbox_head, decode_head, head'
        )
    built = getattr(part, field)
    if isinstance(head, (list, tuple)):
        # each stage of boxes, the last of segmentations; a list is replaced
        # as a whole
        first = len(head) - 1 if field == 'decode_head' else 0
        target[field] = [one.to_dict() for one in head]
        for i in range(first, len(head)):
            target[field][i].update(_latent(head[i], built[i]))
    else:
        target[field] = _latent(head, built)
    return f'model {field}: its last features are latents'


def _latent(head: Any, built: nn.Module) -> dict[str, Any]:
    """Fields that make the last feature of a head stochastic."""
    name = library_class(built)
    if name in known.LATENT_HEADS:
        return dict(known.LATENT_HEADS[name])
    try:
        predictors(built)
    except ValueError as error:
        raise WrapError(
            f'--latent: {error}. Without --latent any head works'
        ) from error
    return dict(type='mmaib.WithLatent', base=type_path(head['type']))
