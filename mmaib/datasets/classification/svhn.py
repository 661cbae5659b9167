from __future__ import annotations

import os.path as osp

import numpy as np
from scipy.io import loadmat

from mmaib.registry import DATASETS

from .image_arrays import ImageArrays


@DATASETS.register_module()
class SVHN(ImageArrays):
    """Street View House Numbers, cropped digits ("format 2").

    ::

        data/svhn/train_32x32.mat    73,257 images
                  test_32x32.mat     26,032
                  extra_32x32.mat   531,131, 1.6 GB in memory

    Labels are the digits; the files have 10 for the digit 0.

    Args:
        data_root: folder of the files.
        split: ``'train'``, ``'test'`` or ``'extra'``.
        kwargs: of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or not whole,
            naming it and its download page.
        ValueError: if ``split`` is none of the three.
    """

    METAINFO = dict(classes=tuple('0123456789'))
    SPLITS = ('train', 'test', 'extra')
    PAGE = 'http://ufldl.stanford.edu/housenumbers/'
    COMMAND = f'wget -P data/svhn {PAGE}{{name}}'

    def read_split(self) -> tuple[np.ndarray, list[int | None]]:
        path = self.path(f'{self.split}_32x32.mat')
        try:
            content = loadmat(path, variable_names=('X', 'y'))
        except Exception as error:  # each part of the reader has its own
            raise self.wrong(
                path,
                f'cannot be read as a MATLAB file ({osp.getsize(path)} '
                f'bytes), it was cut off or is another: {error!r}',
            ) from error
        if not {'X', 'y'} <= content.keys():
            found = sorted(k for k in content if not k.startswith('__'))
            raise self.wrong(path, f'has {found}, it must have X and y')
        images, labels = content['X'], content['y'].ravel()
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[:3] != (32, 32, 3)
        ):
            raise self.wrong(
                path,
                f'has X of shape {images.shape}, {images.dtype}; it must be '
                '(32, 32, 3, N), uint8',
            )
        self.check_labels(path, labels, images.shape[-1])
        digits = labels.astype(int) % 10
        return images.transpose(3, 0, 1, 2), digits.tolist()
