"""How a layer's loss reaches the loss dict of the model around it.

A layer deep inside a neck or a head calls :func:`report_loss`; the model at
the top opens :func:`collect` around the base model's ``loss()`` and adds what
was reported. Nothing is kept on modules, so copies of a model, repeated steps
and interrupted ones never meet a stale graph.
"""

from .reports import (
    AuxLosses,
    Reporter,
    collect,
    collecting,
    monitoring,
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
    'monitoring',
    'report_loss',
    'report_rectangles',
    'report_scalar',
    'require_collector',
]
