"""What can be known to be wrong before a training or a test starts."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.aux_losses import AuxLossMixin
from mmaib.compat import PACKAGES


def check_host(default_scope: str | None) -> None:
    """Refuse a config whose host is not installed.

    Raises:
        ModuleNotFoundError: naming what to install.
    """
    for package in PACKAGES:
        if package.module == default_scope and not package.installed():
            raise ModuleNotFoundError(package.problem())


def _having(field: str, cfg: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Every config below ``cfg`` that sets ``field``, wrapped ones and lists
    included, with the path that --cfg-options knows it by."""
    if isinstance(cfg, dict):
        if cfg.get(field):
            yield path, cfg
        for key, value in cfg.items():
            yield from _having(field, value, f'{path}.{key}')
    elif isinstance(cfg, (list, tuple)):
        for i, value in enumerate(cfg):
            yield from _having(field, value, f'{path}.{i}')


def check_data(cfg: Any, loaders: tuple[str, ...]) -> None:
    """Refuse a config whose data are not where it says.

    Args:
        cfg: the experiment's config.
        loaders: dataloaders that will be used, for instance
            ``('train_dataloader', 'val_dataloader')``.

    Raises:
        FileNotFoundError: naming the field, the folder or file, and how to
            set it.
    """
    for loader in loaders:
        for path, dataset in _having('data_root', cfg.get(loader), loader):
            root = dataset['data_root']
            _must_exist(f'{path}.data_root', root)
            ann_file = dataset.get('ann_file')
            if ann_file and '://' not in ann_file:
                _must_exist(f'{path}.ann_file', osp.join(root, ann_file))
            for name, prefix in (dataset.get('data_prefix') or {}).items():
                if isinstance(prefix, str) and '://' not in prefix:
                    _must_exist(
                        f'{path}.data_prefix.{name}', osp.join(root, prefix)
                    )
        evaluator = loader.replace('_dataloader', '_evaluator')
        for path, metric in _having('ann_file', cfg.get(evaluator), evaluator):
            _must_exist(f'{path}.ann_file', metric['ann_file'])


def check_weights(cfg: Any) -> None:
    """Refuse a config whose initial weights are not where it says.

    Args:
        cfg: the experiment's config.

    Raises:
        FileNotFoundError: naming the field, the file, and what to do.
    """
    named = [('load_from', cfg.get('load_from'))]
    for field in ('pretrained', 'checkpoint'):
        for path, owner in _having(field, cfg.get('model'), 'model'):
            named.append((f'{path}.{field}', owner[field]))
    for field, path in named:
        if not isinstance(path, str) or '://' in path or osp.exists(path):
            continue
        how = 'Put it there'
        if 'beit' in osp.basename(path).lower():
            how = (
                "Make it of BEiT's public weights: python "
                f'tools/model_converters/beit2mmseg.py DOWNLOADED {path}'
            )
        unset = f'--cfg-options {field.removesuffix(".checkpoint")}=None'
        if field == 'load_from':
            unset = 'leave out load_from or the file behind --resume'
        raise FileNotFoundError(
            f"{field}: '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'). {how}, or, to start without it, {unset}."
        )


def _must_exist(field: str, path: str) -> None:
    if '://' not in path and not osp.exists(path):
        raise FileNotFoundError(
            f"{field}: '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'). Set it with --cfg-options {field}=..., "
            'or move the folder of all data sets with MMAIB_DATA where a '
            'config of ours names them.'
        )


def check_collects(model: Any) -> None:
    """Refuse a model whose extra losses nobody would hear.

    Raises:
        TypeError: naming the layer and what to use instead.
    """
    if is_model_wrapper(model):
        model = model.module
    unheard = _unheard(model)
    if unheard:
        name, layer = unheard
        raise TypeError(
            f'{type(model).__name__} does not collect the losses of {name} '
            f'({type(layer).__name__}), which would vanish silently. Set '
            "model.type to 'mmaib.AIBFasterRCNN' or "
            "'mmaib.AIBEncoderDecoder', or to "
            f"'mmaib.WithAuxLosses' with base='{type(model).__name__}'."
        )


def _unheard(module: nn.Module, name: str = '') -> tuple | None:
    """A layer of ours that no model above it collects from."""
    if isinstance(module, AuxLossMixin):
        return None
    if type(module).__module__.startswith('mmaib.layers'):
        return name, module
    for child_name, child in module.named_children():
        if found := _unheard(child, f'{name}.{child_name}'.lstrip('.')):
            return found
    return None


def check_batch(model: nn.Module, batch_size: int | None) -> None:
    """Refuse to train BatchNorm behind a global pooling, as in UPerNet and
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
    bare: Any = model.module if is_model_wrapper(model) else model
    for name, module in bare.named_modules():
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
                    'value per channel behind its global pooling. Take 2 or '
                    'more images a process, SyncBN on several GPUs, or '
                    f'--cfg-options {head}.type=GN {head}.num_groups=16'
                )
