"""What the sample configs run on: a small data set of real aerial
photographs and a small pretrained backbone, both out of PyPI packages."""

from .efficientnet_lite0 import EfficientNetLite0

__all__ = ['EfficientNetLite0']
