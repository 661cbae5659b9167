"""Models that cannot be built, or not be trained as they stand."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.compat import PACKAGES
from mmaib.losses import Reporter
from mmaib.models import AuxLossMixin
from mmaib.models.wrapping import unwrapped
from mmaib.registry import type_name

from .fields import configs_with, evaluator_with, warn

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
    """Refuse a model whose extra losses nobody would hear.

    Raises:
        TypeError: naming the layer and what to use instead.
    """
    model = unwrapped(model)
    if uncollected := _uncollected(model):
        name, layer = uncollected
        raise TypeError(
            f'{type(model).__name__} does not collect the losses of {name} '
            f'({type(layer).__name__}), which would vanish silently. Set '
            "model.type to 'mmaib.AIBFasterRCNN', "
            "'mmaib.AIBEncoderDecoder' or 'mmaib.AIBImageClassifier', or to "
            f"'mmaib.WithAuxLosses' with base='{type(model).__name__}'."
        )


def check_plugins(model: nn.Module) -> list[str]:
    """Warn of mmaib's plug-in layers that a block's forward does not reach,
    or that keep it from others: mmseg's blocks run only the last of several
    in one position. Returns the warnings."""
    sentences = []
    for name, block in model.named_modules():
        if not type(block).__module__.startswith('mmseg.'):
            continue
        for position in ('conv1', 'conv2', 'conv3'):
            names = [*getattr(block, f'after_{position}_plugin_names', [])]
            layers = [getattr(block, layer) for layer in names]
            ours = any(isinstance(layer, Reporter) for layer in layers)
            if ours and len(names) > 1:
                sentences.append(
                    f'{name}: of its plug-ins after_{position}, {names}, '
                    f'mmseg runs only {names[-1]}. Give each a position of '
                    'its own'
                )
    if sentences:
        warn(f'{sentences[0]} ({len(sentences) - 1} more blocks).')
    return sentences


def _uncollected(module: nn.Module, name: str = '') -> tuple | None:
    """One of mmaib's layers that no model above it collects from."""
    if isinstance(module, AuxLossMixin):
        return None
    if isinstance(module, Reporter):
        return name, module
    for child_name, child in module.named_children():
        if found := _uncollected(child, f'{name}.{child_name}'.lstrip('.')):
            return found
    return None


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


def check_batch(model: nn.Module, batch_size: int | None) -> None:
    """Refuse to train BatchNorm after a global pooling, as in UPerNet and
    DeepLab, on a single image.

    Args:
        model: as the Runner built it: without several processes SyncBN is
            BatchNorm by then.
        batch_size: of the training's dataloader.

    Raises:
        ValueError: naming the layer and what to set.
    """
    if batch_size != 1:
        return
    for name, module in unwrapped(model).named_modules():
        if not (
            isinstance(module, nn.Sequential)
            and len(module)
            and isinstance(module[0], nn.AdaptiveAvgPool2d)
            and module[0].output_size in (1, (1, 1))
        ):
            continue
        for norm in module.modules():
            if isinstance(norm, _BatchNorm) and not isinstance(
                norm, nn.SyncBatchNorm
            ):
                head = f'model.{name.split(".")[0]}.norm_cfg'
                raise ValueError(
                    f'train_dataloader.batch_size=1: {name} normalises one '
                    'value per channel after its global pooling. Take 2 or '
                    'more images a process, SyncBN on several GPUs, or '
                    f'--cfg-options {head}.type=GN {head}.num_groups=16'
                )
