"""Data sets that a model cannot learn from, or a metric not count, as they
are built."""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import ceil, isfinite
from traceback import walk_tb
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from .fields import counted, raised_everywhere, warn
from .model import check_topk, class_heads
from .samples import check_files, check_sample, labels_of, skips, steps

# of a data set that are read
ENTRIES = 200_000


def check_datasets(
    runner: Any, cfg: Any, loaders: tuple[str, ...]
) -> dict[str, Any]:
    """Build the data sets of these loaders, that of training first, as the
    Runner is about to, and look at them. The Runner is given the dataloaders,
    which are returned too.

    Raises:
        ValueError: on every process, naming the field, how many entries are
            wrong, the first of them, and what fits.
    """
    heads = class_heads(runner.model)
    built = {}
    for name in loaders:
        asked = getattr(runner, f'_{name}', None)
        if isinstance(asked, dict):
            built[name] = _built(runner, name, asked)
            setattr(runner, f'_{name}', built[name])
    for name, loader in built.items():
        for path, dataset in leaves(loader.dataset, f'{name}.dataset'):
            if not len(dataset):
                raise ValueError(_empty(path, dataset))
            if head := heads.get('model.decode_head'):
                for step in check_files(dataset):
                    if step.num_classes is None:
                        step.num_classes, step.ignored = labels_of(head)
    if 'model.head' in heads:
        check_topk(cfg, loaders, heads['model.head'].num_classes)
    raised_everywhere(_look, built, heads)
    return built


def leaves(dataset: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The data sets inside wrappers and lists that have entries of their
    own, with the path that --cfg-options knows them by."""
    inner = getattr(dataset, 'dataset', None)
    if inner := inner or getattr(dataset, '_dataset', None):
        yield from leaves(inner, f'{path}.dataset')
    elif hasattr(dataset, 'datasets'):
        for i, inner in enumerate(dataset.datasets):
            yield from leaves(inner, f'{path}.datasets.{i}')
    elif isinstance(dataset, BaseDataset):
        yield path, dataset


def _built(runner: Any, name: str, cfg: dict) -> Any:
    different = runner._randomness_cfg.get('diff_rank_seed', False)
    try:
        return runner.build_dataloader(
            cfg, seed=runner.seed, diff_rank_seed=different
        )
    except (ValueError, RuntimeError) as error:
        # how NumPy, and mmpretrain, say that a data set is empty
        for frame, _ in walk_tb(error.__traceback__):
            if frame.f_code.co_name in ('_serialize_data', '_find_samples'):
                dataset = frame.f_locals['self']
                raise ValueError(_empty(f'{name}.dataset', dataset)) from error
        raise


def _empty(path: str, dataset: Any) -> str:
    """What was looked for, and what is there."""
    asked = [
        f'{field.lstrip("_")}={value!r}'
        for field in ('img_suffix', 'extensions', 'ann_file', 'filter_cfg',
                      '_indices')
        if (value := getattr(dataset, field, None))
    ]  # fmt: skip
    folders = dataset.data_prefix
    folders = folders.values() if isinstance(folders, dict) else [folders]
    there = []
    for folder in filter(osp.isdir, filter(None, folders)):
        names = (name for _, _, names in os.walk(folder) for name in names)
        ends = Counter(osp.splitext(name)[1] for name in names)
        found = ', '.join(f'{n} {end}' for end, n in ends.most_common(5))
        there.append(f"'{folder}' has {found or 'no file'}")
    return (
        f'{path} ({type(dataset).__name__}) has no image: '
        f'{", ".join(asked)}; {"; ".join(there)}'
    )


def _look(built: dict[str, Any], heads: dict[str, Any]) -> None:
    trained: list[list[str]] = []
    for name, loader in built.items():
        trains = name.startswith('train')
        for path, dataset in leaves(loader.dataset, f'{name}.dataset'):
            _check_folders(path, dataset)
            classes = dataset.metainfo.get('classes')
            known = isinstance(classes, (list, tuple)) and not getattr(
                dataset, 'return_classes', False
            )
            own = heads if known or not classes else {}
            if 'Panoptic' in type(dataset).__name__:
                own = {}  # things and stuff
            if known:
                _check_heads(path, len(classes), own, trains)
                if trains:
                    trained.append(list(classes))
                elif own and trained and trained == trained[:1] * len(trained):
                    _check_order(path, list(classes), trained[0])
            if type(dataset).get_data_info is BaseDataset.get_data_info:
                _check_entries(path, dataset, own)
                check_sample(path, dataset, own, trains)


def _check_folders(path: str, dataset: Any) -> None:
    """Refuse folders that no one means as classes."""
    folders = list(getattr(dataset, 'folder_to_idx', None) or ())
    stray = [f for f in folders if f.startswith(('.', '__', '@'))]
    if stray:
        raise ValueError(
            f'{path}.data_prefix: {len(stray)} of {len(folders)} folders of '
            f"'{dataset.img_prefix}' would be classes, and shift every label "
            f'after them: {stray}. Remove them'
        )
    classes = list(dataset.metainfo.get('classes') or ())
    if folders and classes != folders and sorted(classes) == sorted(folders):
        raise ValueError(
            f'{path}: labels are counted in the order of the folders, '
            f'{folders}, and named in that of the classes, {classes}. Give '
            'the classes in that order, or leave them out'
        )


def _check_heads(
    path: str, classes: int, heads: dict[str, Any], trains: bool
) -> None:
    for name, head in heads.items():
        if head.num_classes == classes:
            continue
        text = (
            f'{name}.num_classes={head.num_classes}, and {path} has {classes} '
            'classes'
        )
        # a metric finds no category, or no class, for the rest
        counts = not trains and name != 'model.head'
        if head.num_classes < classes or counts:
            raise ValueError(f'{text}: set it to {classes}')
        warn(f'{text}: {head.num_classes - classes} outputs never learn')


def _check_order(path: str, classes: list[str], trained: list[str]) -> None:
    """Refuse a class whose label is another one in training."""
    # ImageNet has two cranes
    moved = [
        name
        for i, name in enumerate(classes)
        if name in trained and trained[i : i + 1] != [name]
    ]
    if moved:
        name = moved[0]
        raise ValueError(
            f'{path}: {len(moved)} classes have another label than in '
            f'training (first: {name!r}, {classes.index(name)} here and '
            f'{trained.index(name)} there). Here are {classes}, there '
            f'{trained}'
        )
    if new := [name for name in classes if name not in trained]:
        warn(f'{path}: training has no class {new}')


def _check_entries(
    path: str, dataset: BaseDataset, heads: dict[str, Any]
) -> None:
    """Files that are not there, labels that no class has, boxes of no
    number."""
    loads = [] if skips(dataset) else steps(dataset, 'LoadImage')
    masks = steps(dataset, 'LoadAnnotations') if loads else []
    masks = [step for step in masks if getattr(step, 'with_seg', False)]
    fields = [
        field
        for field, by in (('img_path', loads), ('seg_map_path', masks))
        if any(_is_local(dataset, step) for step in by)
    ]
    folders: dict[str, set[str]] = {}
    most = min((h.num_classes for h in heads.values()), default=None)
    wrong: dict[str, list[str]] = defaultdict(list)
    stride = ceil(len(dataset) / ENTRIES)
    for i in range(0, len(dataset), stride):
        info = dataset.get_data_info(i)
        image = str(info.get('img_path', f'entry {i}'))
        for field in fields:
            file = info.get(field)
            if isinstance(file, str) and not _is_file(file, folders):
                wrong[f'entries have no file for {field}'].append(repr(file))
        instances = info.get('instances')
        instances = instances if isinstance(instances, list) else []
        labels = [i['bbox_label'] for i in instances if 'bbox_label' in i]
        if info.get('gt_label') is not None:
            labels += np.ravel(info['gt_label']).tolist()
        outside = [n for n in labels if most is not None and not 0 <= n < most]
        if outside:
            fault = f'entries have labels outside 0 to {most - 1}'  # type: ignore
            wrong[fault].append(repr(f'{image}: {outside[0]}'))
        if not all(isfinite(sum(i.get('bbox', ()))) for i in instances):
            wrong['entries have boxes of no number'].append(repr(image))
    if wrong:
        total = len(range(0, len(dataset), stride))
        raise ValueError(f'{path}: {"; ".join(counted(wrong, total))}')


def _is_local(dataset: Any, step: Any) -> bool:
    args = getattr(step, 'backend_args', None) or getattr(
        dataset, 'backend_args', None
    )
    return not args or args.get('backend') == 'local'


def _is_file(path: str, folders: dict[str, set[str]]) -> bool:
    """By one look at each folder; names may differ in case on some disks."""
    if '://' in path:
        return True
    folder, name = osp.split(path)
    if folder not in folders:
        there = osp.isdir(folder or '.')
        folders[folder] = set(os.listdir(folder or '.')) if there else set()
    return name in folders[folder] or osp.isfile(path)
