"""A warning of maps that attend to nothing."""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmaib.losses import Reporter

# how low, and how long, before a map is called flat
FLAT_CONTRAST, FLAT_STEPS = 0.01, 100


class FlatMapWarning:
    """Warns once, when the maps had no contrast for a hundred steps."""

    def __init__(self) -> None:
        # of the last steps that had any; None once the warning was given
        self._contrasts: list[Tensor] | None = []
        self._steps = 0

    def __call__(self, model: nn.Module, contrast: Tensor | None) -> None:
        """After a step.

        Args:
            model: that has the maps.
            contrast: ``attention_contrast`` of the step, if it has any:
                not every step is monitored.
        """
        if self._contrasts is None:
            return
        self._steps += 1
        if contrast is not None:
            self._contrasts.append(contrast)
        if self._steps < FLAT_STEPS or len(self._contrasts) < 2:
            return
        # a GPU is waited for once in a hundred steps
        highest = float(torch.stack(self._contrasts).max())
        self._contrasts.clear()
        self._steps = 0
        if highest >= FLAT_CONTRAST:
            return
        self._contrasts = None
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, Reporter) and hasattr(module, 'attend')
        ]
        MMLogger.get_current_instance().warning(
            f'{", ".join(names)}: the attention map has been flat for '
            f'{FLAT_STEPS} steps (attention_contrast at most {highest:.1e}), '
            'so it attends to nothing. attention=dict(logit_norm=True) '
            'cannot saturate; see attention_saturated in the log'
        )
