from __future__ import annotations

import os.path as osp
from collections import defaultdict
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset, OxfordIIITPet

from mmaib.checks import at_least, one_of
from mmaib.registry import DATASETS

from .from_authors import FromAuthors


@DATASETS.register_module()
class OxfordPetSplits(FromAuthors, BaseDataset):
    """All 7,349 images of Oxford-IIIT Pet, divided anew (Section 6.1 of
    [RECT]): of each of the 37 breeds the same share is for training.

    ::

        data/Oxford-IIIT_Pets/images/Abyssinian_1.jpg  ...
                              annotations/list.txt

    A line of ``list.txt`` is ``<image> <class> <species> <breed>``, after
    lines that begin with ``#``.

    Args:
        data_root: folder of the files.
        split: ``'train'`` or ``'val'``.
        share: of each breed's images that is for training, 0.6, 0.7 and 0.8
            in [RECT].
        seed: of the division; one seed's parts of a share have no image in
            common and leave none out.
        kwargs: of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or not whole,
            naming it and its download page.
        ValueError: if a field does not fit.
    """

    METAINFO = OxfordIIITPet.METAINFO
    PAGE = 'https://www.robots.ox.ac.uk/~vgg/data/pets/'
    COMMAND = (
        'unpack its images.tar.gz and annotations.tar.gz into '
        'data/Oxford-IIIT_Pets'
    )

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        share: float = 0.8,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.split = one_of('split', split, ('train', 'val'))
        if not 0 < share < 1:
            raise ValueError(f'share must be between 0 and 1, got {share!r}')
        self.share = share
        self.seed = at_least('seed', seed, 0)
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        of_breed: dict[int, list[str]] = defaultdict(list)
        for name, label in self._read():
            of_breed[label].append(name)
        rng = np.random.default_rng(self.seed)
        data_list: list[dict[str, Any]] = []
        for label in sorted(of_breed):
            names = of_breed[label]
            order = rng.permutation(len(names))
            count = round(self.share * len(names))
            chosen = order[:count] if self.split == 'train' else order[count:]
            for index in sorted(chosen):
                path = osp.join(
                    self.data_root, 'images', f'{names[index]}.jpg'
                )
                data_list.append(dict(img_path=path, gt_label=label))
        paths = [info['img_path'] for info in data_list]
        self.check_files(paths)
        return data_list

    def _read(self) -> list[tuple[str, int]]:
        """Name and label, from 0, of each image."""
        path = self.path('annotations', 'list.txt')
        count = len(self.METAINFO['classes'])
        labels = {str(i + 1): i for i in range(count)}
        entries = []
        with open(path) as file:
            for number, line in enumerate(file, 1):
                if line.startswith('#') or not line.strip():
                    continue
                name, *numbers = line.split()
                if len(numbers) != 3 or numbers[0] not in labels:
                    raise self.wrong(
                        path,
                        f'has {line.rstrip()!r} in line {number}; it must be '
                        f'an image, a class of 1 to {count}, a species and a '
                        'breed',
                    )
                entries.append((name, labels[numbers[0]]))
        if not entries:
            raise self.wrong(path, 'names no image; it must name 7,349')
        return entries
