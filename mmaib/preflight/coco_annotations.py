"""What mmdet would drop from a COCO file without a word, or stumble over.

Its ``CocoDataset`` skips annotations that it cannot use, and takes the labels
in the file's order of categories, whatever the config's order of classes.
``CocoMetric`` needs fields that a training does without.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any

from mmengine import fileio

from mmaib.datasets.check_files import ROUNDED


class _Found:
    """Faults, counted, each with its first example."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, Any] = {}

    def add(self, fault: str, example: Any) -> None:
        self.counts[fault] += 1
        self.first.setdefault(fault, example)

    def sentences(self, total: int) -> list[str]:
        return [
            f'{n} of {total} {fault} (first: {self.first[fault]})'
            for fault, n in sorted(self.counts.items())
        ]


def check_coco(
    path: str,
    classes: Sequence[str] | None,
    backend_args: dict | None = None,
    filters_empty: bool = False,
    with_mask: bool = False,
) -> list[str]:
    """Read a file of COCO annotations.

    Args:
        path: of the JSON file.
        classes: the config's ``metainfo.classes``; None if it has none.
        backend_args: how to read the file, see MMEngine.
        filters_empty: whether images without annotations are left out.
        with_mask: whether masks are loaded.

    Returns:
        A sentence on each fault that mmdet passes over, with counts.

    Raises:
        ValueError: if the file is not whole, not COCO's, has none of the
            classes, leaves no image, or cannot be meant: fields are missing,
            ids or names stand twice, numbers are none.
    """
    coco = _read(path, backend_args)
    images, names = _listed(path, coco, classes)
    sentences = []
    if 'annotations' not in coco:
        sentences.append('the file has no annotations')
    if classes:
        absent = [name for name in classes if name not in names.values()]
        if len(absent) == len(classes):
            raise ValueError(
                f'{path} has none of the classes {list(classes)}: its '
                f'categories are {sorted(names.values())}. Set '
                'metainfo.classes to these'
            )
        if absent:
            sentences.append(
                f'no category in the file for the classes {absent}'
            )
        ordered = [name for name in names.values() if name in classes]
        if ordered != [name for name in classes if name not in absent]:
            sentences.append(
                f'labels are counted in the order of the file, {ordered}, '
                f'and named in that of metainfo.classes, {list(classes)}'
            )
    twice = _twice(image['file_name'] for image in coco['images'])
    if twice:
        sentences.append(
            f'{len(twice)} file names stand under several ids '
            f'(first: {twice[0]!r})'
        )
    annotations = coco.get('annotations', [])
    total = len(annotations)
    _check_ids(path, 'annotations', annotations)
    wrong, dropped = _Found(), _Found()
    corners = beyond = 0
    furthest: tuple[float, Any] = (0, None)
    for annotation in annotations:
        if annotation.get('ignore', False):
            continue
        try:
            fault, stops = _fault(
                annotation, images, names, classes, with_mask
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{path}': annotation {annotation} does not parse: {error!r}"
            ) from error
        if fault:
            (wrong if stops else dropped).add(
                fault, f'annotation {annotation["id"]}'
            )
            continue
        x, y, w, h = annotation['bbox']
        image = images[annotation['image_id']]
        corners += w > x and h > y
        over = max(x + w - image['width'], y + h - image['height'], -x, -y)
        if over > ROUNDED:
            beyond += 1
            furthest = max(furthest, (over, annotation['id']))
    if wrong.counts:
        raise ValueError(f"'{path}': {'; '.join(wrong.sentences(total))}")
    skipped = sum(
        n for what, n in dropped.counts.items() if what.endswith('skipped')
    )
    if filters_empty and skipped == total:
        raise ValueError(
            f"'{path}' has no annotation that counts ({total}, of them "
            f'{skipped} skipped), and filter_cfg.filter_empty_gt=True leaves '
            'out images without one: none is left'
        )
    if beyond:
        asked = ''
        if beyond * 10 > total and corners == total - skipped:
            asked = (
                '; are they x1, y1, x2, y2? mmdet reads x, y, width, height'
            )
        sentences.append(
            f'{beyond} of {total} boxes reach beyond their image, by up to '
            f'{furthest[0]:.0f} pixels (annotation {furthest[1]}){asked}'
        )
    return sentences + dropped.sentences(total)


def check_evaluated(
    path: str,
    classes: Collection[str] | None,
    metrics: Collection[str],
    backend_args: dict | None = None,
) -> None:
    """Read a file that mmdet's ``CocoMetric`` compares predictions with.

    Args:
        path: of the JSON file.
        classes: that are evaluated; None for all.
        metrics: ``'bbox'``, ``'segm'``, ...
        backend_args: how to read the file, see MMEngine.

    Raises:
        ValueError: if it has no annotation of the classes, or one lacks a
            field that the metric needs.
    """
    coco = _read(path, backend_args)
    images, names = _listed(path, coco, classes)
    counted = [
        annotation
        for annotation in coco.get('annotations', [])
        if annotation.get('image_id') in images
        and (
            not classes or names.get(annotation.get('category_id')) in classes
        )
    ]
    if not counted:
        raise ValueError(
            f"'{path}' has no annotation of the classes to evaluate: every AP "
            'would be -1. Name a file that has, or set format_only=True'
        )
    needed = ['id', 'iscrowd', 'area', 'bbox']
    needed += ['segmentation'] if 'segm' in metrics else []
    lacking = _Found()
    for i, annotation in enumerate(counted):
        for field in needed:
            if field not in annotation or annotation[field] in (None, []):
                lacking.add(
                    f'annotations lack {field!r}, which the metric needs',
                    f'annotation {annotation.get("id", f"number {i}")}',
                )
    if lacking.counts:
        raise ValueError(
            f"'{path}': {'; '.join(lacking.sentences(len(counted)))}"
        )


def _read(path: str, backend_args: dict | None) -> dict[str, Any]:
    text = fileio.get_text(path, backend_args=backend_args)
    if text.startswith('\ufeff'):
        raise ValueError(
            f"'{path}' begins with a byte order mark, which pycocotools does "
            'not read: save it as UTF-8 without BOM'
        )
    try:
        coco = json.loads(text)
    except ValueError as error:
        raise ValueError(f"'{path}' is no whole JSON file: {error}") from error
    fields = ('images', 'categories')
    if not isinstance(coco, dict) or any(f not in coco for f in fields):
        found = sorted(coco) if isinstance(coco, dict) else type(coco).__name__
        raise ValueError(
            f"'{path}' is no COCO file: it needs {list(fields)}, got {found}"
        )
    return coco


def _listed(
    path: str, coco: dict[str, Any], classes: Collection[str] | None
) -> tuple[dict[Any, dict], dict[Any, str]]:
    """Images and names of categories by their ids.

    Raises:
        ValueError: if one lacks a field, or an id or a class's name stands
            twice: pycocotools keeps the last, and labels are shifted.
    """
    fields = ('file_name', 'width', 'height')
    _check_ids(path, 'images', coco['images'], fields)
    _check_ids(path, 'categories', coco['categories'], ('name',))
    for image in coco['images']:
        for side in ('width', 'height'):
            if not isinstance(image[side], (int, float)):
                raise ValueError(
                    f"'{path}': image {image['id']!r} has {side}="
                    f'{image[side]!r}, which is no number'
                )
    if not coco['images']:
        raise ValueError(f"'{path}' lists no image")
    names = {entry['id']: entry['name'] for entry in coco['categories']}
    counted = [name for name in names.values() if name in (classes or ())]
    if twice := _twice(counted):
        ids = [key for key, name in names.items() if name == twice[0]]
        raise ValueError(
            f"'{path}': {len(twice)} classes have several categories (first: "
            f'{twice[0]!r}, of the ids {ids}). mmdet gives each a label of '
            'its own, which shifts the others: rename or remove all but one'
        )
    if classes and (twice := _twice(classes)):
        raise ValueError(f'metainfo.classes has {twice} more than once')
    return {image['id']: image for image in coco['images']}, names


def _check_ids(
    path: str, kind: str, entries: list[dict], fields: tuple[str, ...] = ()
) -> None:
    """Refuse entries without their fields, or of one id."""
    for field in ('id', *fields):
        lacking = [entry for entry in entries if entry.get(field) is None]
        if lacking:
            raise ValueError(
                f"'{path}': {len(lacking)} of {len(entries)} {kind} have no "
                f'{field!r} (first: {str(lacking[0])[:200]})'
            )
    if twice := _twice(entry['id'] for entry in entries):
        raise ValueError(
            f"'{path}': {len(twice)} ids of {kind} stand more than once "
            f'(first: {twice[0]!r}), and pycocotools keeps the last of each'
        )


def _twice(values: Any) -> list[Any]:
    return [value for value, n in Counter(values).items() if n > 1]


def _fault(
    annotation: dict[str, Any],
    images: dict[Any, dict],
    names: dict[Any, str],
    classes: Sequence[str] | None,
    with_mask: bool,
) -> tuple[str, bool]:
    """What is wrong with an annotation, and whether that stops a training."""
    for field in ('image_id', 'category_id', 'bbox', 'area'):
        if field not in annotation:
            return f'annotations have no {field!r}', True
    image = images.get(annotation['image_id'])
    if image is None:
        if other := _other_kind(annotation['image_id'], images):
            return f'annotations have an image_id {other}', True
        return 'annotations belong to no image of the file: skipped', False
    category = names.get(annotation['category_id'])
    if category is None:
        if other := _other_kind(annotation['category_id'], names):
            return f'annotations have a category_id {other}', True
        return (
            'annotations have a category the file does not list: skipped',
            False,
        )
    if classes and category not in classes:
        return (
            f'annotations are of {category!r}, which is no class: skipped',
            False,
        )
    x, y, w, h = annotation['bbox']
    if not isfinite(x + y + w + h + annotation['area']):
        return 'boxes or areas are not finite', True
    if w < 1 or h < 1 or annotation['area'] <= 0:
        return 'boxes have no area: skipped', False
    inside_x = min(x + w, image['width']) - max(x, 0)
    inside_y = min(y + h, image['height']) - max(y, 0)
    if inside_x <= 0 or inside_y <= 0:
        return 'boxes lie outside their image: skipped', False
    mask = annotation.get('segmentation')
    if with_mask and not mask:
        return "annotations have no 'segmentation', and with_mask=True", True
    size = [image['height'], image['width']]
    if isinstance(mask, dict) and list(mask['size']) != size:
        return (
            'masks have another size than their image, and would not load',
            with_mask,
        )
    return '', False


def _other_kind(key: Any, known: dict[Any, Any]) -> str:
    """How an id that is not known is written otherwise than it is there."""
    others = [str] if isinstance(key, int) else [int, float]
    for kind in others:
        try:
            if kind(key) in known:
                return (
                    f'that is {type(key).__name__}, where the file lists '
                    f'{kind.__name__}'
                )
        except (TypeError, ValueError):
            continue
    return ''
