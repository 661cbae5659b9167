from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel as MMSegTTAModel

from mmaib.registry import MODELS


@MODELS.register_module()
class SegTTAModel(MMSegTTAModel):
    """mmseg's, with ``seg_logits`` of the merged prediction, which metrics of
    calibration read: mmseg leaves those of the last view. Without
    ``entropy`` and ``mutual_information``, which are of a view.

    Of one channel the mean of the views' probabilities meets
    ``decode_head.threshold``; mmseg takes their sigmoid a second time, which
    is above 0.5 everywhere.
    """

    def merge_preds(self, data_samples_list: list) -> list:
        return [self._merged(views) for views in data_samples_list]

    def _merged(self, views: Any) -> Any:
        data = torch.stack([view.seg_logits.data for view in views])
        if self.module.out_channels == 1:  # probabilities by now
            found = data.mean(0)
            labels = found > self.module.decode_head.threshold
        else:
            found = data.softmax(1).mean(0)
            labels = found.argmax(0, keepdim=True)
            found = found.clamp(min=torch.finfo(found.dtype).tiny).log()
        merged = views[0]  # it has the ground truth
        for name in ('entropy', 'mutual_information'):
            merged.pop(name, None)
        merged.set_data(
            dict(
                seg_logits=PixelData(data=found),
                pred_sem_seg=PixelData(data=labels.long()),
            )
        )
        return merged
