"""What the sample configs run on: real photographs and a small pretrained
backbone out of PyPI packages."""

from .cluttered_digits import ClutteredDigits
from .efficientnet_lite0 import EfficientNetLite0

__all__ = ['ClutteredDigits', 'EfficientNetLite0']
