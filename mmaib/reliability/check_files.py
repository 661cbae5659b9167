from __future__ import annotations

import io
import logging
import os
from typing import Any

import mmcv
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, UnidentifiedImageError

from mmaib.checks import one_of
from mmaib.registry import TRANSFORMS

Size = tuple[int, int]
# tag of EXIF; above 4 the hosts turn the image by 90 degrees
_ORIENTATION = 0x112
_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


@TRANSFORMS.register_module()
class CheckFiles:
    """Name an image or mask that was cut off; the first transform of a
    training pipeline. (The hosts' inference takes the first one of a test
    pipeline for the loader.)

    A host trains on the grey rest of a JPEG that was cut off, and of other
    broken files its decoder complains without a name. Checked are the
    image's and the mask's header and end, and that both have the same size,
    above one pixel; a file without its format's end is decoded, to be sure.

    Args:
        broken: ``'raise'``, or ``'skip'``: in training another image is
            taken instead, as the hosts do for files that do not load, and a
            warning counts them.
        backend_args: how to read files, see MMEngine.

    Raises:
        ValueError: from the data set, naming the file and what is wrong
            with it.
    """

    def __init__(
        self, broken: str = 'raise', backend_args: dict | None = None
    ) -> None:
        self.broken = one_of('broken', broken, ('raise', 'skip'))
        self.backend_args = backend_args
        self.skipped: set[str] = set()

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        image, mask = results['img_path'], results.get('seg_map_path')
        try:
            size = self._size(image, rotates=True)
            if mask:
                self._check_mask(mask, image, size)
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

    def _check_mask(self, mask: str, image: str, size: Size | None) -> None:
        own = self._size(mask)
        if own and size and own != size:
            raise ValueError(
                f"'{mask}' has {own} pixels (width, height), its image "
                f"'{image}' has {size}"
            )
        if own and min(own) == 1:
            raise ValueError(
                f"'{mask}' has {own} pixels (width, height): the hosts "
                'squeeze a mask, and a side of one pixel is lost'
            )

    def _size(self, path: str, rotates: bool = False) -> Size | None:
        """Width and height of a whole image, as the hosts load it; None if
        Pillow does not look at such files."""
        try:
            content = bytes(fileio.get(path, self.backend_args))
        except OSError as error:
            raise ValueError(
                f"'{path}' cannot be read with "
                f'backend_args={self.backend_args}: {error}'
            ) from error
        if not content:
            raise ValueError(f"'{path}' is empty")
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


def _decodes(content: bytes) -> bool:
    """Whether the hosts' decoder knows what Pillow does not."""
    try:
        return mmcv.imfrombytes(content, flag='unchanged') is not None
    except Exception:  # a decoder's own
        return False
