"""Data that are not there, or cannot be meant."""

from __future__ import annotations

import logging
import os.path as osp
from inspect import signature
from typing import Any

from mmengine import fileio
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmaib.registry import DATASETS as OURS
from mmaib.reliability.coco_annotations import check_coco

from .fields import configs_with


def check_data(cfg: Any, loaders: tuple[str, ...]) -> None:
    """Refuse a config whose data are not where it says.

    Files behind ``backend_args`` are asked for there: an annotation file
    through the data set's, folders also through those of its pipeline.

    Args:
        cfg: the experiment's config.
        loaders: dataloaders that will be used, for instance
            ``('train_dataloader', 'val_dataloader')``.

    Raises:
        FileNotFoundError: naming the field, the folder or file, and how to
            set it.
    """
    scope = cfg.get('default_scope')
    for loader in loaders:
        for path, dataset in configs_with(
            'data_root', cfg.get(loader), loader
        ):
            root = dataset['data_root']
            if not osp.isdir(root) and _downloads(dataset, scope):
                continue  # the data set sees to it
            own = dataset.get('backend_args')
            loading = configs_with('backend_args', dataset.get('pipeline'), '')
            readers = [own, *(step['backend_args'] for _, step in loading)]
            _must_exist(f'{path}.data_root', root, readers, _page(dataset))
            if ann_file := dataset.get('ann_file'):
                file = _joined(root, ann_file)
                _must_exist(f'{path}.ann_file', file, [own])
            prefixes = dataset.get('data_prefix') or {}
            if isinstance(prefixes, str):  # mmpretrain
                prefixes = {'': prefixes}
            for name, prefix in prefixes.items():
                if isinstance(prefix, str):
                    field = f'{path}.data_prefix.{name}'.rstrip('.')
                    _must_exist(field, _joined(root, prefix), readers)
        evaluator = loader.replace('_dataloader', '_evaluator')
        for path, metric in configs_with(
            'ann_file', cfg.get(evaluator), evaluator
        ):
            reader = metric.get('backend_args')
            _must_exist(f'{path}.ann_file', metric['ann_file'], [reader])


def _downloads(dataset: dict, scope: str | None) -> bool:
    """Whether a data set fetches what it lacks: as told, or, as
    mmpretrain's CIFAR, unless it is told not to."""
    if 'download' in dataset:
        return bool(dataset['download'])
    kind = _class_of(dataset, scope)
    if kind is None:
        return False
    download = signature(kind).parameters.get('download')
    return download is not None and download.default is True


def _class_of(dataset: dict, scope: str | None = None) -> Any:
    """The class that a data set's type names; None if there is none."""
    kind = dataset.get('type', '')
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(kind)


def _joined(root: str, path: str) -> str:
    return path if '://' in path else osp.join(root, path)


def _is_there(path: str, backend_args: dict | None) -> bool:
    """Whether it is, as far as the file backend can tell."""
    if '://' in path and not backend_args:
        return True
    backend = fileio.get_file_backend(path, backend_args=backend_args)
    return not hasattr(backend, 'exists') or backend.exists(path)


def _page(dataset: dict) -> str:
    """Where a data set of ours comes from."""
    kind = dataset.get('type')
    if not isinstance(kind, str) or not kind.startswith('mmaib.'):
        return ''
    source = getattr(OURS.get(kind), 'SOURCE', None)
    return f' Its download page is {source.page}' if source else ''


def _must_exist(
    field: str, path: str, readers: list[dict | None], page: str = ''
) -> None:
    """Refuse what is not there for any of the ``backend_args``."""
    if not any(_is_there(path, reader) for reader in readers):
        asked = ''.join(f', with backend_args={r}' for r in readers if r)
        raise FileNotFoundError(
            f"{field}: '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'{asked}). Set it with --cfg-options "
            f'{field}=..., or move the folder of all data sets with '
            f'MMAIB_DATA where a config of ours names them.{page}'
        )


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
        for path, dataset in configs_with('ann_file', cfg.get(loader), loader):
            root = dataset.get('data_root') or ''
            kind = _class_of(dataset)
            if not _reads_coco(kind):
                continue
            reader = dataset.get('backend_args')
            ann_file = _joined(root, dataset['ann_file'])
            remote = '://' in ann_file and not reader
            if remote or not _is_there(ann_file, reader):
                continue
            classes = {
                **kind.METAINFO,
                **(dataset.get('metainfo') or {}),
            }.get('classes')
            if isinstance(classes, str):
                classes = fileio.list_from_file(classes)
            filters = dataset.get('filter_cfg') or {}
            filters_empty = bool(
                filters.get('filter_empty_gt') and not dataset.get('test_mode')
            )
            try:
                sentences = check_coco(
                    ann_file, classes, reader, filters_empty
                )
            except ValueError as error:
                raise ValueError(f'{path}.ann_file: {error}') from error
            for sentence in sentences:
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
