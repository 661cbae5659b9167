"""What the sample configs run on: real photographs and a small pretrained
backbone out of PyPI packages."""

from .efficientnet_lite0 import EfficientNetLite0

__all__ = ['EfficientNetLite0']
