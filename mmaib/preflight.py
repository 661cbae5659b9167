"""What can be known to be wrong before a training or a test starts."""

from __future__ import annotations

import logging
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import find_latest_checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.aux_losses import AuxLossMixin
from mmaib.checkpoint import read_checkpoint
from mmaib.compat import PACKAGES
from mmaib.datasets.coco_annotations import check_coco


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


def check_annotations(cfg: Any, loaders: tuple[str, ...]) -> None:
    """Refuse COCO annotations that cannot be meant, and warn of those that
    mmdet would skip without a word.

    Args:
        cfg: the experiment's config; its scope must be initialised.
        loaders: dataloaders that will be used.

    Raises:
        ValueError: on every process, naming the field, the file and what is
            wrong with it.
    """
    wrong: list[str | None] = [None]
    if is_main_process():
        try:
            _read_annotations(cfg, loaders)
        except ValueError as error:
            wrong = [str(error)]
    broadcast_object_list(wrong)
    if wrong[0] is not None:
        raise ValueError(wrong[0])


def _read_annotations(cfg: Any, loaders: tuple[str, ...]) -> None:
    for loader in loaders:
        for path, dataset in _having('ann_file', cfg.get(loader), loader):
            root = dataset.get('data_root') or ''
            kind = dataset.get('type', '')
            if isinstance(kind, str):
                with DATASETS.switch_scope_and_registry(None) as registry:
                    kind = registry.get(kind)
            if not _reads_coco(kind):
                continue
            ann_file = osp.join(root, dataset['ann_file'])
            if not osp.isfile(ann_file):
                continue
            classes = {
                **kind.METAINFO,
                **(dataset.get('metainfo') or {}),
            }.get('classes')
            if isinstance(classes, str):
                classes = list_from_file(classes)
            try:
                told = check_coco(ann_file, classes)
            except ValueError as error:
                raise ValueError(f'{path}.ann_file: {error}') from error
            for sentence in told:
                print_log(
                    f'{path}.ann_file {ann_file}: {sentence}',
                    logger='current',
                    level=logging.WARNING,
                )


def _reads_coco(kind: Any) -> bool:
    """Whether a data set reads its file as mmdet's CocoDataset does."""
    steps = ('load_data_list', 'parse_data_info')
    return all(
        getattr(getattr(kind, step, None), '__qualname__', '')
        == f'CocoDataset.{step}'
        for step in steps
    )


def check_weights(cfg: Any) -> None:
    """Refuse a config whose initial weights are not where it says, or not
    weights.

    Args:
        cfg: the experiment's config.

    Raises:
        FileNotFoundError: naming the field, the file, and what to do.
        ValueError: if the file is not whole, or loading it would run code.
    """
    named = [('load_from', cfg.get('load_from'))]
    for field in ('pretrained', 'checkpoint'):
        for path, owner in _having(field, cfg.get('model'), 'model'):
            named.append((f'{path}.{field}', owner[field]))
    for field, path in named:
        if not isinstance(path, str) or '://' in path:
            continue
        path = osp.expanduser(path)
        if osp.exists(path):
            check_checkpoint(field, path)
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


def check_checkpoint(field: str, path: str) -> None:
    """Refuse a local checkpoint that is not whole or would run code.

    Args:
        field: what the user named it by.
        path: of the file; a remote one is not looked at.

    Raises:
        ValueError: naming the field, the file and what is wrong with it.
    """
    if '://' not in path:
        try:
            read_checkpoint(path)
        except ValueError as error:
            raise ValueError(f'{field}: {error}') from error


def check_resume(cfg: Any, model: nn.Module) -> None:
    """Refuse to go on from a checkpoint that is broken or another model's.

    MMEngine would start what it does not find in the checkpoint, or finds in
    another shape, from its initialisation, and give it the optimizer's state
    of another parameter.

    Args:
        cfg: the experiment's config.
        model: as the Runner built it.

    Raises:
        FileNotFoundError, ValueError: naming the checkpoint, and its whole
            neighbours or the parameters that differ.
    """
    if not cfg.get('resume'):
        return
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    if path is None or '://' in path or osp.isdir(path):
        return
    try:
        if not osp.isfile(path):
            raise FileNotFoundError(f"'{path}' is not there")
        read = read_checkpoint(path)
        if not isinstance(read, dict) or 'state_dict' not in read:
            raise ValueError(f"'{path}' is no checkpoint of a training")
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f'resume: {error}. {_whole_checkpoints(cfg.work_dir)}'
        ) from error
    bare: Any = model.module if is_model_wrapper(model) else model
    saved, own = _tensors(read['state_dict']), _tensors(bare.state_dict())
    buffers = dict(bare.named_buffers())
    differing = [
        *(f'{n} is not in it' for n in own if n not in {*saved, *buffers}),
        *(f'{n} is only in it' for n in saved if n not in own),
        *(
            f'{n} is {tuple(saved[n].shape)} in it, {tuple(t.shape)} here'
            for n, t in own.items()
            if n in saved and saved[n].shape != t.shape
        ),
    ]
    if differing:
        more = len(differing) - 12
        raise ValueError(
            f"resume: '{path}' is another model's:\n  "
            + '\n  '.join(differing[:12])
            + (f'\n  and {more} more' if more > 0 else '')
            + '\nResume with the config that wrote it, or begin anew with '
            f'its weights: --cfg-options load_from={path}, without --resume '
            'and in another --work-dir.'
        )


def _tensors(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """Without what modules keep beside them (`get_extra_state`)."""
    return {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}


def _whole_checkpoints(folder: str) -> str:
    """Advice on what one can resume from instead."""
    whole = []
    for path in Path(folder).glob('*.pth'):
        try:
            if 'optimizer' in read_checkpoint(str(path)):
                whole.append(path)
        except ValueError:
            continue
    if not whole:
        return f"No other checkpoint in '{folder}' can be resumed"
    latest = max(whole, key=lambda path: path.stat().st_mtime)
    return f'The latest that is whole: --resume {latest}'


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
