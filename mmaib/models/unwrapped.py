from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper


def unwrapped(model: Any) -> Any:
    """The model, without a DistributedDataParallel around it."""
    return model.module if is_model_wrapper(model) else model
