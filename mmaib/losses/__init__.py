"""The one road by which a layer's loss reaches its host's loss dict.

A layer deep inside a neck or a head calls :func:`report_loss`; the model at
the top opens :func:`collect` around the host's ``loss()`` and adds what was
reported. Nothing is kept on modules, so copies of a model, repeated steps
and interrupted ones never meet a stale graph.
"""

from .reports import (
    AuxLosses,
    Reporter,
    collect,
    collecting,
    report_loss,
    report_rectangles,
    report_scalar,
    require_collector,
)

__all__ = [
    'AuxLosses',
    'Reporter',
    'collect',
    'collecting',
    'report_loss',
    'report_rectangles',
    'report_scalar',
    'require_collector',
]
