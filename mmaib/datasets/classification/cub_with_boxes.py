from __future__ import annotations

import math
from typing import Any

import numpy as np
from mmengine.fileio import LocalBackend, list_from_file
from mmpretrain.datasets import CUB

from mmaib.checks import one_of
from mmaib.registry import DATASETS

from .from_authors import FromAuthors


@DATASETS.register_module()
class CUBWithBoxes(FromAuthors, CUB):
    """MMPretrain's CUB-200-2011 with the birds' boxes in ``gt_bboxes``.

    ::

        data/CUB_200_2011/images/  images.txt  image_class_labels.txt
                          train_test_split.txt  bounding_boxes.txt

    A line of ``bounding_boxes.txt`` is ``<image_id> <x> <y> <width>
    <height>`` in pixels. It counts from 0: there are boxes of the whole
    image that begin there. Some end a pixel outside of their image;
    :class:`CropToBox` clips.

    Args:
        data_root: folder of the files.
        split: ``'train'`` or ``'test'``.
        kwargs: of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or not whole,
            naming it and its download page.
        ValueError: if ``split`` is none of both.

    Shape:
        ``gt_bboxes`` ``(1, 4)``, float32: left, top, right and bottom, the
        latter two not included.
    """

    PAGE = 'https://www.vision.caltech.edu/datasets/cub_200_2011/'
    COMMAND = '`tar xzf CUB_200_2011.tgz -C data/` makes data/CUB_200_2011'

    def __init__(
        self, data_root: str, split: str = 'train', **kwargs: Any
    ) -> None:
        one_of('split', split, ('train', 'test'))
        super().__init__(data_root=data_root, split=split, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The base data set's samples, each with its box."""
        box_file = self.backend.join_path(self.data_root, 'bounding_boxes.txt')
        names = self._read(self.ann_file, 1)
        boxes = self._of_each(names, box_file, 4)
        labels = [str(i + 1) for i in range(len(self.CLASSES))]
        for path, choices in (
            (self.image_class_labels_file, labels),
            (self.train_test_split_file, ['0', '1']),
        ):
            found = {entry for (entry,) in self._of_each(names, path).values()}
            if strange := sorted(found - set(choices)):
                raise self.wrong(
                    path,
                    f'has {strange[:5]}; {choices[0]} to {choices[-1]} fit',
                )
        box_of = {
            self.backend.join_path(self.img_prefix, name): self._box(
                box_file, image_id, boxes[image_id]
            )
            for image_id, (name,) in names.items()
        }
        data_list = super().load_data_list()
        for info in data_list:
            info['gt_bboxes'] = box_of[info['img_path']]
        if isinstance(self.backend, LocalBackend):
            paths = [info['img_path'] for info in data_list]
            self.check_files(paths)
        return data_list

    def _of_each(
        self, names: dict[str, list[str]], path: str, columns: int = 1
    ) -> dict[str, list[str]]:
        """The entries of a file, one for each image."""
        entries = self._read(path, columns)
        if entries.keys() != names.keys():
            raise self.wrong(
                path,
                f'has {len(entries)} image ids, {self.ann_file!r} has '
                f'{len(names)}: they must be the same. One of the files was '
                'cut off',
            )
        return entries

    def _read(self, path: str, columns: int) -> dict[str, list[str]]:
        """What stands after the image id in each line of a file."""
        if not self.backend.isfile(path):
            raise self.missing(path)
        entries = {}
        for number, line in enumerate(list_from_file(path), 1):
            image_id, *entry = line.split() or ['']
            if not image_id.isdecimal() or len(entry) != columns:
                raise self.wrong(
                    path,
                    f'has {line!r} in line {number}; it must be an image id '
                    f'and {columns} more, separated by spaces',
                )
            entries[image_id] = entry
        return entries

    def _box(self, path: str, image_id: str, entry: list[str]) -> np.ndarray:
        try:
            x, y, width, height = map(float, entry)
        except ValueError:
            x = y = width = height = math.nan
        if not (
            math.isfinite(x + y + width + height) and width > 0 and height > 0
        ):
            raise self.wrong(
                path,
                f'has the box {" ".join(entry)} of image {image_id}; it must '
                'be x, y, width and height, the latter two above 0',
            )
        return np.array([[x, y, x + width, y + height]], np.float32)
