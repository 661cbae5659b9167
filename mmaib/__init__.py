"""Information-bottleneck spatial attention for the MM detection,
segmentation and classification libraries.

Importing this package is cheap: layers and plug-ins load when a config names
them (`mmaib.X`) or when they are imported, and the functions below when they
are used:

- :func:`mmaib.wrap_config`: attention in a config;
- :func:`mmaib.train_readout`: where a trained model looks;
- :func:`mmaib.save_readout`, :func:`mmaib.load_readout`: that, published;
- :func:`mmaib.explain`: what one of its predictions rests on.
"""

from importlib import import_module
from typing import Any

__version__ = '0.1.0'
_LAZY = {
    'wrap_config': 'mmaib.cli.wrap',
    'train_readout': 'mmaib.cli.readout',
    'save_readout': 'mmaib.cli.published',
    'load_readout': 'mmaib.cli.published',
    'explain': 'mmaib.explanations',
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
