from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmaib.checks import one_of
from mmaib.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CropToBox(BaseTransform):
    """Crop the loaded image to the box of its object.

    Takes ``img`` and the one box in ``gt_bboxes``, sets ``img`` (a view),
    ``img_shape`` and the box within the crop. Borders are rounded to whole
    pixels and clipped to the image.

    Args:
        missing: what to do without ``gt_bboxes``: ``'raise'``, or take the
            ``'whole'`` image, as for inference on a picture of a bird.

    Raises:
        ValueError: from the data set, naming the image, if it has not one
            box, or its box no pixel.
    """

    def __init__(self, missing: str = 'raise') -> None:
        self.missing = one_of('missing', missing, ('raise', 'whole'))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image, name = results['img'], results.get('img_path')
        boxes = results.get('gt_bboxes')
        if boxes is None and self.missing == 'whole':
            return results
        if boxes is None or len(boxes) != 1:
            raise ValueError(
                f"CropToBox needs one box in gt_bboxes for '{name}', got "
                f'{boxes}. mmaib.CUBWithBoxes is a data set with boxes'
            )
        height, width = image.shape[:2]
        borders = np.asarray(boxes[0], float)
        clipped = borders.round().clip(0, [width, height] * 2).astype(int)
        left, top, right, bottom = clipped
        if left >= right or top >= bottom:
            raise ValueError(
                f"'{name}': the box {borders.tolist()} (left, top, right, "
                f'bottom) has no pixel of the image, {width} x {height}'
            )
        results['img'] = image[top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        corner, far = [left, top] * 2, [right, bottom] * 2
        within = np.clip(boxes, corner, far) - corner
        results['gt_bboxes'] = within.astype(np.float32)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(missing={self.missing!r})'
