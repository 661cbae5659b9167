from __future__ import annotations

import numpy as np
import torch
from mmseg.models import BEiT
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from mmaib.registry import MODELS


@MODELS.register_module()
class AIBBEiT(BEiT):
    """mmseg's BEiT, whose checkpoints load onto another image size.

    A relative-position table of another grid is resized by the geometric
    interpolation of BEiT, from pretraining (``init_cfg``) and from any
    checkpoint of a segmentor alike. mmseg calls SciPy's ``interp2d`` for
    it, which SciPy 1.14 removed; ``RectBivariateSpline`` is the replacement
    that SciPy names.

    Args:
        args, kwargs: of mmseg's ``BEiT``.

    Raises:
        NotImplementedError: if a table must be resized and ``img_size`` is
            not square.
    """

    def train(self, mode: bool = True) -> AIBBEiT:
        super().train(mode)
        return self  # mmseg's gives None

    def _geometric_sequence_interpolation(
        self, src_size: int, dst_size: int, sequence: Tensor, num: int
    ) -> Tensor:
        """Table ``(src_size ** 2, num)`` to ``(dst_size ** 2, num)``."""
        steps = src_size // 2
        ratio = _geometric_ratio(steps, dst_size // 2)
        distances = np.cumsum(ratio ** np.arange(steps))
        grid = np.concatenate([-distances[::-1], [0.0], distances])
        reach = dst_size // 2
        wanted = np.arange(-reach, reach + 1, dtype=float)
        tables = sequence.T.reshape(num, src_size, src_size)
        resized = [
            RectBivariateSpline(grid, grid, table.double().numpy())(
                wanted, wanted
            )
            for table in tables
        ]
        return torch.from_numpy(np.stack(resized)).flatten(1).T.to(sequence)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        own = self.state_dict()
        for name, value in own.items():
            key = prefix + name
            if key not in state_dict or state_dict[key].shape == value.shape:
                continue
            if name.endswith('relative_position_bias_table'):
                table = {name: state_dict[key]}
                state_dict[key] = self.resize_rel_pos_embed(table)[name]
            elif name.endswith('relative_position_index'):
                state_dict[key] = value
        super()._load_from_state_dict(state_dict, prefix, *args)


def _geometric_ratio(steps: int, reach: int) -> float:
    """The ratio q of 1 + q + ... + q ** (steps - 1) = reach."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 - middle**steps) / (1 - middle) > reach:
            high = middle
        else:
            low = middle
    return middle
