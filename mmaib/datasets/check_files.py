from __future__ import annotations

import io
import logging
import os
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, UnidentifiedImageError

from mmaib.checks import one_of
from mmaib.registry import TRANSFORMS

# boxes may end a rounded pixel outside their image
ROUNDED = 2

Size = tuple[int, int]
# tag of EXIF; above 4 the base libraries turn the image by 90 degrees
_ORIENTATION = 0x112
_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


@TRANSFORMS.register_module()
class CheckFiles:
    """Name an image or mask that was cut off; the first transform of a
    training pipeline. (The base libraries' inference takes the first one of a
    test pipeline for the loader.)

    A base library trains on the grey rest of a JPEG that was cut off, and of
    other broken files its decoder complains without a name. Checked are the
    image's and the mask's header and end, and that both have the same size,
    above one pixel; a file without its format's end is decoded, to be sure.
    An image is compared with the size that a COCO file lists, a segmentor's
    mask must have one channel of labels that a class has.

    Args:
        broken: ``'raise'``, or ``'skip'``: in training another image is
            taken instead, as the base libraries do for files that do not
            load, and a warning counts them.
        backend_args: how to read files, see MMEngine.
        num_classes: labels of a segmentor's masks, which are decoded to be
            looked at; None for that of the model's head in a training by
            mmaib's tools, and otherwise not to look.

    Raises:
        ValueError: from the data set, naming the file and what is wrong
            with it.
    """

    def __init__(
        self,
        broken: str = 'raise',
        backend_args: dict | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.broken = one_of('broken', broken, ('raise', 'skip'))
        self.backend_args = backend_args
        self.num_classes = num_classes
        self.ignored = {255}
        # whether the loader turns an image by its EXIF
        self.turned = True
        self.skipped: set[str] = set()
        self.found: set[int] = set()

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        image, mask = results['img_path'], results.get('seg_map_path')
        try:
            size = self._size(image, self._content(image), self.turned)
            if mask:
                self._check_mask(mask, image, size, results)
            if size:
                _check_listed(image, size, results)
        except ValueError as error:
            if self.broken == 'raise':
                raise
            self.skipped.add(image)
            print_log(
                f'CheckFiles: {len(self.skipped)} broken so far in process '
                f'{os.getpid()}, another image is taken instead: {error}',
                logger='current',
                level=logging.WARNING,
            )
            return None
        return results

    def _check_mask(
        self, mask: str, image: str, size: Size | None, results: dict
    ) -> None:
        content = self._content(mask)
        own = self._size(mask, content)
        if own and size and own != size:
            raise ValueError(
                f"'{mask}' has {own} pixels (width, height), its image "
                f"'{image}' has {size}"
            )
        if own and min(own) == 1:
            raise ValueError(
                f"'{mask}' has {own} pixels (width, height): the base "
                'libraries squeeze a mask, and a side of one pixel is lost'
            )
        if own and 'seg_fields' in results:  # of mmseg
            self._check_labels(mask, content, results)

    def _check_labels(self, mask: str, content: bytes, results: dict) -> None:
        """Compare the labels that mmseg will make of a mask with the
        classes."""
        with Image.open(io.BytesIO(content)) as image:
            bands = image.getbands()
            if len(bands) > 1:
                raise ValueError(
                    f"'{mask}' has the channels {', '.join(bands)}: a mask "
                    'has one, of labels. Save it as greyscale or with a '
                    'palette'
                )
            deep = image.mode not in ('1', 'L', 'P')
            if self.num_classes is None and not deep:
                return
            pixels = np.asarray(image)
        if deep and (pixels.min() < 0 or pixels.max() > 255):
            raise ValueError(
                f"'{mask}' has labels from {pixels.min()} to {pixels.max()}, "
                'of which mmseg keeps 8 bits: save labels from 0 to 255'
            )
        if self.num_classes is None:
            return
        counts = np.bincount(pixels.ravel().astype(np.uint8), minlength=256)
        labels = {int(value): int(value) for value in counts.nonzero()[0]}
        if reduced := results.get('reduce_zero_label'):
            labels = {v: 255 if v in (0, 255) else v - 1 for v in labels}
        renamed = results.get('label_map') or {}
        labels = {v: renamed.get(new, new) for v, new in labels.items()}
        self.found |= {*labels.values()}
        fit = {*range(self.num_classes), *self.ignored}
        if wrong := [v for v, new in labels.items() if new not in fit]:
            asked = '; reduce_zero_label=True is set' if reduced else ''
            if not reduced and wrong == [self.num_classes]:
                asked = '; if 0 is no class, set reduce_zero_label=True'
            raise ValueError(
                f"'{mask}' has the values {wrong} in "
                f'{sum(int(counts[v]) for v in wrong)} pixels, which no class '
                f'has: labels are 0 to {self.num_classes - 1}, and '
                f'{sorted(self.ignored)} is ignored{asked}'
            )

    def _content(self, path: str) -> bytes:
        try:
            content = bytes(fileio.get(path, self.backend_args))
        except OSError as error:
            raise ValueError(
                f"'{path}' cannot be read with "
                f'backend_args={self.backend_args}: {error}'
            ) from error
        if not content:
            raise ValueError(f"'{path}' is empty")
        return content

    def _size(
        self, path: str, content: bytes, rotates: bool = False
    ) -> Size | None:
        """Width and height of a whole image, as the base library loads it;
        None if Pillow does not look at such files."""
        try:
            with Image.open(io.BytesIO(content)) as image:
                end = _ENDS.get(image.format or '')
                if end is None or end not in content[-64:]:
                    image.load()
                # Pillow forgives a PNG its missing end
                if image.format == 'PNG' and _ENDS['PNG'] not in content:
                    raise OSError('no IEND chunk')
                width, height = image.size
                turned = rotates and image.getexif().get(_ORIENTATION, 1) > 4
                return (height, width) if turned else (width, height)
        except Image.DecompressionBombError:
            return None
        except UnidentifiedImageError:
            if _decodes(content):
                return None
            raise ValueError(
                f"'{path}' is no image: {len(content)} bytes that begin with "
                f'{content[:8]!r}'
            ) from None
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"'{path}' is broken or cut off ({len(content)} bytes): "
                f'{error}'
            ) from error


def _check_listed(image: str, size: Size, results: dict) -> None:
    """Compare an image with the size that its COCO file lists."""
    listed = results.get('width'), results.get('height')
    if listed == size or None in listed:
        return
    boxes = [i['bbox'] for i in results.get('instances', []) if 'bbox' in i]
    outside = [
        box
        for box in boxes
        if box[2] > size[0] + ROUNDED or box[3] > size[1] + ROUNDED
    ]
    turned = listed[::-1] == size
    if outside or (turned and boxes):
        beyond = f', and {len(outside)} of {len(boxes)} boxes end outside'
        raise ValueError(
            f"'{image}' has {size} pixels (width, height) as it is loaded, "
            f'and its annotation file lists {listed}'
            + (' (it is turned by its EXIF)' if turned else '')
            + (beyond if outside else '')
        )


def _decodes(content: bytes) -> bool:
    """Whether the base libraries' decoder knows what Pillow does not."""
    try:
        return mmcv.imfrombytes(content, flag='unchanged') is not None
    except Exception:  # a decoder's own
        return False
