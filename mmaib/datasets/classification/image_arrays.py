from __future__ import annotations

from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmaib.checks import one_of

from .from_authors import FromAuthors


class ImageArrays(FromAuthors, BaseDataset):
    """Small images that their authors distribute as one array a split.

    The array is held once, as it was read; a sample's image is copied out of
    it when it is asked for, so that workers share it and no transform can
    write to it. ``indices`` leave it whole.

    A subclass names ``SPLITS``, ``PAGE`` and ``COMMAND`` and reads a split.

    Args:
        data_root: folder of the files.
        split: one of ``SPLITS``; MMEngine's ``ConcatDataset`` joins several.
        kwargs: of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or not whole,
            naming it and its download page.
        ValueError: if ``split`` is none of ``SPLITS``.
    """

    SPLITS: tuple[str, ...]
    images: np.ndarray

    def __init__(
        self, data_root: str, split: str = 'train', **kwargs: Any
    ) -> None:
        self.split = one_of('split', split, self.SPLITS)
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def read_split(self) -> tuple[np.ndarray, list[int | None]]:
        """Images ``(N, H, W, 3)``, RGB, uint8, and N labels; an image whose
        label is None is left out."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Read the split; a sample's image is its number."""
        self.images, labels = self.read_split()
        self.images.setflags(write=False)
        return [
            dict(img=number, gt_label=label)
            for number, label in enumerate(labels)
            if label is not None
        ]

    def get_data_info(self, idx: int) -> dict:
        """As mmpretrain's CIFAR10 has it: ``img`` ``(H, W, 3)``, uint8, RGB,
        and ``gt_label``."""
        info = super().get_data_info(idx)
        info['img'] = np.array(self.images[info['img']], order='C')
        return info

    def check_labels(self, path: str, labels: np.ndarray, count: int) -> None:
        """Refuse labels of a file, ``(n,)``, that are not 1 to 10, or not as
        many as there are images.

        Raises:
            ValueError: naming the file, what came and what fits.
        """
        if len(labels) != count:
            raise self.wrong(
                path,
                f'has {len(labels)} labels for {count} images: it must be one '
                'for each. One of the files was cut off, or is of another '
                'split',
            )
        strange = np.unique(labels[~np.isin(labels, np.arange(1, 11))])
        if len(strange):
            raise self.wrong(
                path,
                f'has labels {strange[:5].tolist()}; those of the official '
                'file are 1 to 10',
            )

    def extra_repr(self) -> list[str]:
        return [
            f'Root of dataset: \t{self.data_root}',
            f'Split: \t{self.split}',
        ]

    def _copy_without_annotation(self, memo: dict | None = None) -> Any:
        # nothing writes to the images: a subset shares them
        memo = {} if memo is None else memo
        memo[id(self.images)] = self.images
        return super()._copy_without_annotation(memo)
