from __future__ import annotations

from mmengine.model import BaseModule


class OwnInitialization(BaseModule):
    """A layer that starts from what it sets itself, whatever initialises the
    model around it."""

    def start(self) -> None:
        """Set it."""

    def init_weights(self) -> None:
        initialized = self.is_init
        super().init_weights()
        # a model-level init_cfg, which comes first, takes every layer
        if not initialized and not self.init_cfg:
            self.start()
