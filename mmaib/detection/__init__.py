"""Plug-ins for MMDetection."""

from .aib_bbox_head import AIBShared2FCBBoxHead
from .aib_faster_rcnn import AIBFasterRCNN
from .aib_roi_head import AIBRoIHead

__all__ = ['AIBFasterRCNN', 'AIBRoIHead', 'AIBShared2FCBBoxHead']
