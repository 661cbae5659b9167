"""Models that cannot be built, or not be trained as they stand."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmaib.compat import PACKAGES
from mmaib.losses import Reporter
from mmaib.models import AuxLossMixin
from mmaib.models.wrapping import unwrapped
from mmaib.registry import type_name

from .fields import configs_with, evaluator_with

_CLASS_HEADS = (
    'bbox_head',
    'mask_head',
    'roi_head.bbox_head',
    'roi_head.mask_head',
    'decode_head',
    'head',
)
# GLIP, Grounding DINO; SAN
_READS_TEXT = ('language_model', 'text_encoder')


def check_library(default_scope: str | None) -> None:
    """Refuse a config whose base library is not installed.

    Raises:
        ModuleNotFoundError: naming what to install.
    """
    for package in PACKAGES:
        if package.module == default_scope and not package.installed():
            raise ModuleNotFoundError(package.problem())


def check_runner(cfg: Any) -> None:
    """Refuse what shards or offloads a model: it was never run with mmaib.

    Raises:
        ValueError: naming the field and the reason.
    """
    runner = cfg.get('runner_type')
    if 'FlexibleRunner' in str(runner):
        raise ValueError(
            f'runner_type={runner!r} (FSDP, DeepSpeed, ColossalAI) is not '
            'supported: it builds the model after the checks that mmaib '
            'needs it for. Leave it out: the Runner trains with '
            'MMDistributedDataParallel'
        )
    wrapper = (cfg.get('model_wrapper_cfg') or {}).get('type')
    if 'FullyShardedDataParallel' in str(wrapper):
        raise ValueError(
            f'model_wrapper_cfg.type={wrapper!r} is not supported: '
            "MMEngine's Runner would save the shard of rank 0 as the "
            'checkpoint. Leave it out for MMDistributedDataParallel'
        )


def check_collects(model: Any) -> None:
    """Refuse a model whose extra losses would be lost.

    Raises:
        TypeError: naming the layer and what to use instead.
    """
    model = unwrapped(model)
    collecting = tuple(
        f'{name}.'.lstrip('.')
        for name, module in model.named_modules()
        if isinstance(module, AuxLossMixin)
    )
    for name, layer in model.named_modules():
        if isinstance(layer, Reporter) and not name.startswith(collecting):
            raise TypeError(
                f'{type(model).__name__} does not collect the losses of '
                f'{name} ({type(layer).__name__}), which would vanish '
                "silently. Set model.type to 'mmaib.AIBFasterRCNN', "
                "'mmaib.AIBEncoderDecoder' or 'mmaib.AIBImageClassifier', or "
                f"to 'mmaib.WithAuxLosses' with base='{type(model).__name__}'."
            )


def class_heads(model: nn.Module) -> dict[str, Any]:
    """Heads whose ``num_classes`` are those of the data set, by the fields of
    the config: not a proposal head's, an auxiliary boundary's or a semantic
    branch's, and none of a model that reads its classes as text."""
    model = unwrapped(model)
    if any(hasattr(model, name) for name in _READS_TEXT):
        return {}
    heads = {}
    for name in _CLASS_HEADS:
        try:
            found = model.get_submodule(name)
        except AttributeError:
            continue
        many = isinstance(found, nn.ModuleList)
        parts = [*found.children()] if many else [found]
        for i, head in enumerate(parts):
            if isinstance(getattr(head, 'num_classes', None), int):
                heads[f'model.{name}' + f'.{i}' * many] = head
    return heads


def check_topk(cfg: Any, loaders: tuple[str, ...], num_classes: int) -> None:
    """Refuse an accuracy among more classes than a classifier's head has.

    Raises:
        ValueError: naming the field and what fits.
    """
    asked = [
        (path, metric)
        for loader in loaders
        for path, metric in evaluator_with('topk', cfg, loader)
        if type_name(metric.get('type', '')).rpartition('.')[2]
        in ('Accuracy', 'MultiLabelMetric')
    ]
    asked += [
        (path, head)
        for path, head in configs_with('topk', cfg.get('model'), 'model')
        if head.get('cal_acc')
    ]
    for path, owner in asked:
        topk = owner['topk']
        most = topk if isinstance(topk, int) else max(topk)
        if most > num_classes:
            raise ValueError(
                f'{path}.topk={topk!r}: the head has {num_classes} classes, '
                f'so at most {num_classes} fits'
            )
