"""What the sample configs run on, real photographs and a small pretrained
backbone out of PyPI packages, and checks of anyone's data."""

from .check_files import CheckFiles
from .efficientnet_lite0 import EfficientNetLite0

__all__ = ['CheckFiles', 'EfficientNetLite0']
