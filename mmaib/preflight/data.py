"""Data that are not there, or cannot be meant."""

from __future__ import annotations

import os.path as osp
from inspect import signature
from typing import Any

from mmengine import fileio
from mmengine.registry import DATASETS, METRICS, Registry

from mmaib.registry import DATASETS as OURS

from .coco_annotations import check_coco, check_evaluated
from .fields import (
    configs_with,
    evaluator_with,
    named,
    raised_everywhere,
    warn,
)


def check_data(cfg: Any, loaders: tuple[str, ...]) -> None:
    """Refuse a config whose data are not where it says, in the dataloaders
    that will be used, such as ``('train_dataloader', 'val_dataloader')``.

    Files of ``backend_args`` are asked for there: an annotation file
    through the data set's, folders also through those of its pipeline.

    Raises:
        FileNotFoundError: naming the field, the folder or file, and how to
            set it.
        ValueError: if classes are a string that is no file.
    """
    scope = cfg.get('default_scope')
    for loader in loaders:
        for path, owner in configs_with('classes', cfg.get(loader), loader):
            if '.pipeline.' not in path:
                _must_be_names(f'{path}.classes', owner['classes'])
        roots = configs_with('data_root', cfg.get(loader), loader)
        for path, dataset in roots:
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
        for path, metric in evaluator_with('ann_file', cfg, loader):
            reader = metric.get('backend_args')
            _must_exist(f'{path}.ann_file', metric['ann_file'], [reader])


def _downloads(dataset: dict, scope: str | None) -> bool:
    """Whether a data set fetches what it lacks: if asked to, or, as
    mmpretrain's CIFAR, unless asked not to."""
    if 'download' in dataset:
        return bool(dataset['download'])
    kind = _class_of(dataset, scope)
    if kind is None:
        return False
    download = signature(kind).parameters.get('download')
    return download is not None and download.default is True


def _class_of(
    config: dict, scope: str | None = None, registry: Registry = DATASETS
) -> Any:
    """The class that a config's type names; None if there is none."""
    kind = config.get('type')
    if not kind or not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as found:
        return found.get(kind)


def _joined(root: str, path: str) -> str:
    return path if '://' in path else osp.join(root, path)


def _is_there(path: str, backend_args: dict | None) -> bool | None:
    """Whether it is, as far as the file backend knows; None if there is none
    to ask."""
    if '://' in path and not backend_args:
        return None
    backend = fileio.get_file_backend(path, backend_args=backend_args)
    return not hasattr(backend, 'exists') or backend.exists(path)


def _page(dataset: dict) -> str:
    """Where one of mmaib's data sets comes from."""
    kind = dataset.get('type')
    if not isinstance(kind, str) or not kind.startswith('mmaib.'):
        return ''
    page = getattr(OURS.get(kind), 'PAGE', None)
    return f' Its download page is {page}' if page else ''


def _must_exist(
    field: str, path: str, readers: list[dict | None], page: str = ''
) -> None:
    """Refuse what is not there for any of the ``backend_args``."""
    if all(_is_there(path, reader) is False for reader in readers):
        asked = ''.join(f', with backend_args={r}' for r in readers if r)
        raise FileNotFoundError(
            f"{field}: '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'{asked}). Set it with --cfg-options "
            f'{field}=..., or move the folder of all data sets with '
            f'MMAIB_DATA where the configs name them.{page}'
        )


def check_annotations(cfg: Any, loaders: tuple[str, ...]) -> None:
    """Refuse COCO annotations that cannot be meant, and warn of those that
    mmdet would skip without a word, in the dataloaders that will be used; the
    config's scope must be initialised.

    Raises:
        ValueError: on every process, naming the field, the file and what is
            wrong with it.
    """
    raised_everywhere(_read_annotations, cfg, loaders)


def _read_annotations(cfg: Any, loaders: tuple[str, ...]) -> None:
    for loader in loaders:
        known: set[str] = set()
        for path, dataset in configs_with('ann_file', cfg.get(loader), loader):
            kind = _class_of(dataset)
            if not _reads_coco(kind):
                continue
            metainfo = {**kind.METAINFO, **(dataset.get('metainfo') or {})}
            classes = metainfo.get('classes')
            if isinstance(classes, str):
                classes = fileio.list_from_file(classes)
            known.update(classes or ())
            reader = dataset.get('backend_args')
            ann_file = _joined(
                dataset.get('data_root') or '', dataset['ann_file']
            )
            if not _is_there(ann_file, reader):
                continue
            filters = dataset.get('filter_cfg') or {}
            filters_empty = filters.get('filter_empty_gt', False)
            filters_empty = filters_empty and not dataset.get('test_mode')
            loads = any(configs_with('with_mask', dataset.get('pipeline'), ''))
            with named(f'{path}.ann_file'):
                sentences = check_coco(
                    ann_file, classes, reader, filters_empty, loads
                )
            for sentence in sentences:
                warn(f'{path}.ann_file {ann_file}: {sentence}')
        for path, metric in evaluator_with('ann_file', cfg, loader):
            kind = _class_of(metric, registry=METRICS)
            family = [base.__name__ for base in getattr(kind, '__mro__', ())]
            reader, ann_file = metric.get('backend_args'), metric['ann_file']
            if (
                'CocoMetric' not in family
                or metric.get('format_only')
                or not _is_there(ann_file, reader)
            ):
                continue
            asked = metric.get('metric', 'bbox')
            asked = [asked] if isinstance(asked, str) else asked
            with named(f'{path}.ann_file'):
                check_evaluated(ann_file, known, asked, reader)


def _must_be_names(field: str, classes: Any) -> None:
    """Refuse a string of which each letter would be a class."""
    if not isinstance(classes, str) or '://' in classes:
        return
    if not osp.isfile(osp.expanduser(classes)):
        raise ValueError(
            f'{field} is the string {classes!r}, and no file of that name is '
            f'there: each letter would be a class. Write ({classes!r},), '
            'with the comma'
        )


def _reads_coco(kind: Any) -> bool:
    """Whether a data set reads its file as mmdet's CocoDataset does."""
    return all(
        getattr(getattr(kind, step, None), '__qualname__', '')
        == f'CocoDataset.{step}'
        for step in ('load_data_list', 'parse_data_info')
    )
