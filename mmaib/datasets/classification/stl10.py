from __future__ import annotations

from typing import Any

import numpy as np
from mmpretrain.datasets.categories import CIFAR10_CATEGORIES

from mmaib.checks import one_of
from mmaib.registry import DATASETS

from .image_arrays import ImageArrays

_SHAPE = (3, 96, 96)
# what class_names.txt says, labels 1 to 10
_CLASSES = (
    'airplane', 'bird', 'car', 'cat', 'deer', 'dog', 'horse', 'monkey',
    'ship', 'truck',
)  # fmt: skip


@DATASETS.register_module()
class STL10(ImageArrays):
    """The labelled images of STL-10, 96x96, from the binary files.

    ::

        data/stl10_binary/train_X.bin  train_y.bin   5,000 images
                          test_X.bin   test_y.bin    8,000

    For a classifier of CIFAR-10, ``label_space='cifar10'`` gives CIFAR-10's
    labels (a car is an automobile). CIFAR-10 has no monkey, and STL-10 no
    frog: monkeys are left out, and 4,500 and 7,200 images stay, all of which
    a classifier may get right.

    Args:
        data_root: folder of the files.
        split: ``'train'`` or ``'test'``.
        label_space: ``'stl10'`` or ``'cifar10'``.
        kwargs: of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or not whole,
            naming it and its download page.
        ValueError: if a field is none of the above.
    """

    METAINFO = dict(classes=_CLASSES)
    SPLITS = ('train', 'test')
    PAGE = 'https://cs.stanford.edu/~acoates/stl10/'
    COMMAND = '`tar xzf stl10_binary.tar.gz -C data/` makes data/stl10_binary'

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        label_space: str = 'stl10',
        **kwargs: Any,
    ) -> None:
        self.label_space = one_of(
            'label_space', label_space, ('stl10', 'cifar10')
        )
        if label_space == 'cifar10':
            kwargs['classes'] = kwargs.get('classes') or CIFAR10_CATEGORIES
        super().__init__(data_root, split, **kwargs)

    def read_split(self) -> tuple[np.ndarray, list[int | None]]:
        path = self.path(f'{self.split}_X.bin')
        label_path = self.path(f'{self.split}_y.bin')
        pixels = np.fromfile(path, np.uint8)
        size = int(np.prod(_SHAPE))
        if not len(pixels) or len(pixels) % size:
            raise self.wrong(
                path,
                f'has {len(pixels)} bytes; it must be a multiple of {size}, '
                '3 x 96 x 96 for each image. It was cut off or is another',
            )
        # column by column, one channel at a time
        images = pixels.reshape(-1, *_SHAPE).transpose(0, 3, 2, 1)
        labels = np.fromfile(label_path, np.uint8)
        self.check_labels(label_path, labels, len(images))
        table = self._table()
        return images, [table[label - 1] for label in labels.tolist()]

    def _table(self) -> list[int | None]:
        """For each of STL-10's classes, the label of its images."""
        if self.label_space == 'stl10':
            return list(range(len(_CLASSES)))
        same = {name: i for i, name in enumerate(CIFAR10_CATEGORIES)}
        same['car'] = same['automobile']
        return [same.get(name) for name in _CLASSES]
