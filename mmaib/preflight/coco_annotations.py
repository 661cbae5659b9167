"""What mmdet would drop from a COCO file without a word, or stumble over.

Its ``CocoDataset`` skips annotations that it cannot use, and takes the labels
in the file's order of categories, whatever the config's order of classes.
``CocoMetric`` needs fields that a training does without.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, NamedTuple

from mmengine import fileio

from mmaib.datasets.check_files import ROUNDED

from .fields import counted

# what comes of a fault
STOPS, SKIPPED, WARNED = 'stops', 'skipped', 'warned'


class Coco(NamedTuple):
    """A file's images and names of categories by their ids, and its
    annotations; None if it has no such field."""

    images: dict[Any, dict]
    names: dict[Any, str]
    annotations: list[dict] | None


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
        a sentence on each fault that mmdet passes over, with counts.

    Raises:
        ValueError: if the file is not whole, has none of the classes, leaves
            no image, or cannot be meant.
    """
    coco = _read(path, classes, backend_args)
    sentences = _classes(path, coco, classes or ())
    annotations = coco.annotations or []
    total = len(annotations)
    _check_ids(path, 'annotations', annotations)
    faults: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    over: list[tuple[float, Any]] = []
    corners = 0
    for annotation in annotations:
        if annotation.get('ignore', False):
            continue
        try:
            fault, outcome = _fault(annotation, coco, classes, with_mask)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{path}': annotation {annotation} does not parse: {error!r}"
            ) from error
        if fault:
            faults[outcome][fault].append(f'annotation {annotation["id"]}')
            continue
        x, y, w, h = annotation['bbox']
        image = coco.images[annotation['image_id']]
        corners += w > x and h > y
        beyond = max(x + w - image['width'], y + h - image['height'], -x, -y)
        if beyond > ROUNDED:
            over.append((beyond, annotation['id']))
    if STOPS in faults:
        wrong = '; '.join(counted(faults[STOPS], total))
        raise ValueError(f"'{path}': {wrong}")
    skipped = sum(map(len, faults[SKIPPED].values()))
    if filters_empty and skipped == total:
        raise ValueError(
            f"'{path}' has no annotation that counts ({total}, of them "
            f'{skipped} skipped), and filter_cfg.filter_empty_gt=True leaves '
            'out images without one: none is left'
        )
    if over:
        furthest, name = max(over)
        sentence = (
            f'{len(over)} of {total} boxes reach beyond their image, by up to '
            f'{furthest:.0f} pixels (annotation {name})'
        )
        if len(over) * 10 > total and corners == total - skipped:
            sentence += (
                '; are they x1, y1, x2, y2? mmdet reads x, y, width, height'
            )
        sentences.append(sentence)
    skips = {f'{k}: skipped': v for k, v in faults[SKIPPED].items()}
    return sentences + counted({**skips, **faults[WARNED]}, total)


def check_evaluated(
    path: str,
    classes: Collection[str] | None,
    metrics: Collection[str],
    backend_args: dict | None = None,
) -> None:
    """Read a file that mmdet's ``CocoMetric`` compares predictions with, of
    these classes (None for all), by metrics such as ``'bbox'``.

    Raises:
        ValueError: if it has no annotation of the classes, or one lacks a
            field that the metric needs.
    """
    coco = _read(path, classes, backend_args)
    used = [
        annotation
        for annotation in coco.annotations or ()
        if annotation.get('image_id') in coco.images
        if not classes
        or coco.names.get(annotation.get('category_id')) in classes
    ]
    if not used:
        raise ValueError(
            f"'{path}' has no annotation of the classes to evaluate: every AP "
            'would be -1. Name a file that has, or set format_only=True'
        )
    needed = ['id', 'iscrowd', 'area', 'bbox']
    needed += ['segmentation'] if 'segm' in metrics else []
    lacking = defaultdict(list)
    for i, annotation in enumerate(used):
        for field in needed:
            if annotation.get(field) in (None, []):
                fault = f'annotations lack {field!r}, which the metric needs'
                name = annotation.get('id', f'number {i}')
                lacking[fault].append(f'annotation {name}')
    if lacking:
        raise ValueError(f"'{path}': {'; '.join(counted(lacking, len(used)))}")


def _read(
    path: str, classes: Collection[str] | None, backend_args: dict | None
) -> Coco:
    """A file, if it is whole, and its images and classes can be identified:
    of an id that stands twice pycocotools keeps the last."""
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
    fields = ['images', 'categories']
    if not isinstance(coco, dict) or any(f not in coco for f in fields):
        found = sorted(coco) if isinstance(coco, dict) else type(coco).__name__
        raise ValueError(
            f"'{path}' is no COCO file: it needs {fields}, got {found}"
        )
    sides = ('width', 'height')
    _check_ids(path, 'images', coco['images'], ('file_name', *sides))
    _check_ids(path, 'categories', coco['categories'], ('name',))
    if not coco['images']:
        raise ValueError(f"'{path}' lists no image")
    for image in coco['images']:
        for side in sides:
            if not isinstance(image[side], (int, float)):
                raise ValueError(
                    f"'{path}': image {image['id']!r} has {side}="
                    f'{image[side]!r}, which is no number'
                )
    names = {entry['id']: entry['name'] for entry in coco['categories']}
    if twice := _twice(n for n in names.values() if n in (classes or ())):
        ids = [key for key, name in names.items() if name == twice[0]]
        raise ValueError(
            f"'{path}': {len(twice)} classes have several categories (first: "
            f'{twice[0]!r}, of the ids {ids}). mmdet gives each a label of '
            'its own, which shifts the others: rename or remove all but one'
        )
    if twice := _twice(classes or ()):
        raise ValueError(f'metainfo.classes has {twice} more than once')
    images = {image['id']: image for image in coco['images']}
    return Coco(images, names, coco.get('annotations'))


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


def _classes(path: str, coco: Coco, classes: Sequence[str]) -> list[str]:
    """Sentences on what the file lists, against the config's classes."""
    sentences = []
    if coco.annotations is None:
        sentences.append('the file has no annotations')
    listed = [*coco.names.values()]
    absent = [name for name in classes if name not in listed]
    if classes and len(absent) == len(classes):
        raise ValueError(
            f'{path} has none of the classes {list(classes)}: its categories '
            f'are {sorted(listed)}. Set metainfo.classes to these'
        )
    if absent:
        sentences.append(f'no category in the file for the classes {absent}')
    ordered = [name for name in listed if name in classes]
    if ordered != [name for name in classes if name not in absent]:
        sentences.append(
            f'labels are counted in the order of the file, {ordered}, '
            f'and named in that of metainfo.classes, {list(classes)}'
        )
    if twice := _twice(image['file_name'] for image in coco.images.values()):
        sentences.append(
            f'{len(twice)} file names stand under several ids '
            f'(first: {twice[0]!r})'
        )
    return sentences


def _fault(
    annotation: dict[str, Any],
    coco: Coco,
    classes: Sequence[str] | None,
    with_mask: bool,
) -> tuple[str, str]:
    """What is wrong with an annotation, if anything, and what comes of it."""
    for field in ('image_id', 'category_id', 'bbox', 'area'):
        if field not in annotation:
            return f'annotations have no {field!r}', STOPS
    for field, known, unknown in (
        ('image_id', coco.images, 'belong to no image of the file'),
        ('category_id', coco.names, 'have a category the file does not list'),
    ):
        key = annotation[field]
        if key not in known:
            kinds = {type(other).__name__ for other in known}
            if known and type(key).__name__ not in kinds:
                return (
                    f'annotations have an {field} that is '
                    f'{type(key).__name__}, where the file lists '
                    f'{" and ".join(sorted(kinds))}',
                    STOPS,
                )
            return f'annotations {unknown}', SKIPPED
    category = coco.names[annotation['category_id']]
    if classes and category not in classes:
        return f'annotations are of {category!r}, which is no class', SKIPPED
    x, y, w, h = annotation['bbox']
    if not isfinite(x + y + w + h + annotation['area']):
        return 'boxes or areas are not finite', STOPS
    if w < 1 or h < 1 or annotation['area'] <= 0:
        return 'boxes have no area', SKIPPED
    image = coco.images[annotation['image_id']]
    width, height = image['width'], image['height']
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'boxes lie outside their image', SKIPPED
    mask = annotation.get('segmentation')
    if with_mask and not mask:
        return "annotations have no 'segmentation', and with_mask=True", STOPS
    if isinstance(mask, dict) and list(mask['size']) != [height, width]:
        fault = 'masks have another size than their image, and would not load'
        return fault, STOPS if with_mask else WARNED
    return '', ''
