"""Plug-ins for MMDetection."""

from .aib_bbox_head import AIBShared2FCBBoxHead
from .aib_cascade_roi_head import AIBCascadeRoIHead
from .aib_faster_rcnn import AIBCascadeRCNN, AIBFasterRCNN
from .aib_roi_head import AIBRoIHead

__all__ = [
    'AIBCascadeRCNN',
    'AIBCascadeRoIHead',
    'AIBFasterRCNN',
    'AIBRoIHead',
    'AIBShared2FCBBoxHead',
]
