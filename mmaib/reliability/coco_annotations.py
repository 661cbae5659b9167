"""What mmdet would drop from a COCO file without a word.

Its ``CocoDataset`` skips annotations that it cannot use, and takes the labels
in the file's order of categories, whatever the config's order of classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmengine import fileio


def check_coco(
    path: str,
    classes: Sequence[str] | None,
    backend_args: dict | None = None,
    filters_empty: bool = False,
) -> list[str]:
    """Read a file of COCO annotations.

    Args:
        path: of the JSON file.
        classes: the config's ``metainfo.classes``; None if it has none.
        backend_args: how to read the file, see MMEngine.
        filters_empty: whether images without annotations are left out.

    Returns:
        A sentence on each fault, with counts.

    Raises:
        ValueError: if the file is not whole, not COCO's, has none of the
            classes, leaves no image, or an annotation lacks a field.
    """
    coco = _read(path, backend_args)
    names = {entry['id']: entry['name'] for entry in coco['categories']}
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
    images = {image['id']: image for image in coco['images']}
    if not images:
        raise ValueError(f"'{path}' lists no image")
    dropped: Counter[str] = Counter()
    annotations = coco.get('annotations', [])
    for annotation in annotations:
        if annotation.get('ignore', False):
            continue
        try:
            fault = _fault(annotation, images, names, classes)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{path}': annotation {annotation} does not parse: {error!r}"
            ) from error
        if fault:
            dropped[fault] += 1
    total = len(annotations)
    skipped = sum(n for what, n in dropped.items() if what.endswith('skipped'))
    if filters_empty and skipped == total:
        raise ValueError(
            f"'{path}' has no annotation that counts ({total}, of them "
            f'{skipped} skipped), and filter_cfg.filter_empty_gt=True leaves '
            'out images without one: none is left'
        )
    sentences += [
        f'{n} of {total} {what}' for what, n in sorted(dropped.items())
    ]
    return sentences


def _read(path: str, backend_args: dict | None) -> dict[str, Any]:
    try:
        coco = json.loads(fileio.get_text(path, backend_args=backend_args))
    except ValueError as error:
        raise ValueError(f"'{path}' is no whole JSON file: {error}") from error
    fields = ('images', 'categories')
    if not isinstance(coco, dict) or any(f not in coco for f in fields):
        found = sorted(coco) if isinstance(coco, dict) else type(coco).__name__
        raise ValueError(
            f"'{path}' is no COCO file: it needs {list(fields)}, got {found}"
        )
    return coco


def _fault(
    annotation: dict[str, Any],
    images: dict[Any, dict],
    names: dict[Any, str],
    classes: Sequence[str] | None,
) -> str | None:
    """What is wrong with an annotation."""
    image = images.get(annotation['image_id'])
    if image is None:
        return 'annotations belong to no image of the file: skipped'
    category = names.get(annotation['category_id'])
    if category is None:
        return 'annotations have a category the file does not list: skipped'
    if classes and category not in classes:
        return f'annotations are of {category!r}, which is no class: skipped'
    x, y, w, h = annotation['bbox']
    if w < 1 or h < 1 or annotation['area'] <= 0:
        return 'boxes have no area: skipped'
    inside_x = min(x + w, image['width']) - max(x, 0)
    inside_y = min(y + h, image['height']) - max(y, 0)
    if inside_x <= 0 or inside_y <= 0:
        return 'boxes lie outside their image: skipped'
    mask = annotation.get('segmentation')
    size = [image['height'], image['width']]
    if isinstance(mask, dict) and list(mask['size']) != size:
        return 'masks have another size than their image, and would not load'
    return None
