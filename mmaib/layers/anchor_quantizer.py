from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.checks import at_least
from mmaib.functional import nearest_anchor, split_levels, straight_through
from mmaib.functional.gaussian import at_least_float32
from mmaib.losses import (
    Reporter,
    collecting,
    monitoring,
    report_loss,
    report_scalar,
)
from mmaib.registry import MODELS

from .image_cells import own_cells, own_level_mean


@MODELS.register_module()
class AnchorQuantizer(Reporter, BaseModule):
    r"""Quantise attention scores to learned anchors, Section 3.2.1 of [AIB].

    .. math::
        L_{vq} = \overline{(\mathrm{sg}[a] - a_q)^2}, \quad
        L_{cmt} = \overline{(a - \mathrm{sg}[a_q])^2}

    The papers print a squared norm in Eq. 16-17; the authors' code, and
    this, take the mean. The anchors learn from :math:`L_{vq}` alone; the
    task's gradient passes straight through to the scores.

    Reports ``loss_vq`` and ``loss_commit``, and the monitors
    ``anchor_perplexity`` and ``anchors_used``.

    Args:
        num_anchors: Q; the papers use 20 and, for WRN, 50.
        init_range: the anchors start evenly spaced on this range.
        vq_weight: weight of the loss that moves the anchors.
        commit_weight: weight of the loss that holds scores near anchors.
        init_cfg: see MMEngine.

    Attributes:
        all_levels: whether it takes the scores of all levels of a pyramid
            side by side, with their grids; a quantizer without it is called
            level by level.

    Shape:
        any shape -> the same shape, float32 or wider.

    Example:
        >>> quantizer = AnchorQuantizer(num_anchors=5)
        >>> quantizer(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
        >>> quantizer(torch.tensor([0.1, 0.2, 0.9])).tolist()
        [0.0, 0.25, 1.0]

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        num_anchors: int = 20,
        init_range: tuple[float, float] = (0.0, 1.0),
        vq_weight: float = 0.4,
        commit_weight: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_anchors = at_least('num_anchors', num_anchors, 1)
        self.vq_weight = at_least('vq_weight', vq_weight, 0.0)
        self.commit_weight = at_least('commit_weight', commit_weight, 0.0)
        pair = isinstance(init_range, list | tuple) and len(init_range) == 2
        if not (pair and init_range[0] < init_range[1]):
            raise ValueError(
                'init_range must be (low, high) with low < high, '
                f'got {init_range!r}'
            )
        self.anchors = nn.Parameter(torch.linspace(*init_range, num_anchors))

    all_levels = True

    def forward(
        self, scores: Tensor, grids: Sequence[Sequence[int]] = ()
    ) -> Tensor:
        scores = at_least_float32(scores)
        values, indices = nearest_anchor(scores, self.anchors)
        if collecting(self.training):
            self._report(scores, values, indices, grids)
        return straight_through(scores, values)

    def _report(
        self,
        scores: Tensor,
        values: Tensor,
        indices: Tensor,
        grids: Sequence[Sequence[int]],
    ) -> None:
        vq = (values - scores.detach()).square()
        commit = (scores - values.detach()).square()
        for name, weight, loss in (
            ('loss_vq', self.vq_weight, vq),
            ('loss_commit', self.commit_weight, commit),
        ):
            report_loss(name, weight * own_level_mean(loss, grids))
        if not monitoring():
            return
        for used in split_levels(indices, grids):
            cells = own_cells(used)
            each = (
                torch.ones_like(used)
                if cells is None
                else cells.expand_as(used)
            )
            # not bincount, which waits for the GPU to learn the largest index
            counts = each.new_zeros(self.num_anchors).scatter_add_(
                0, used.flatten(), each.flatten()
            )
            usage = counts / counts.sum()
            report_scalar(
                'anchor_perplexity', torch.special.entr(usage).sum().exp()
            )
            report_scalar('anchors_used', (counts > 0).sum())
