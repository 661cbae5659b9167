"""Data sets that MMPretrain lacks, read from their authors' own files."""

from .crop_to_box import CropToBox
from .cub_with_boxes import CUBWithBoxes
from .oxford_pet import OxfordPetSplits
from .stl10 import STL10
from .svhn import SVHN

__all__ = ['STL10', 'SVHN', 'CUBWithBoxes', 'CropToBox', 'OxfordPetSplits']
