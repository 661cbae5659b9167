"""Information-bottleneck spatial attention for the MM detection,
segmentation and classification libraries.

Importing this package is cheap: the layers and the host plug-ins load when a
config names them (`mmaib.X`) or when they are imported.
"""

__version__ = '0.1.0'
