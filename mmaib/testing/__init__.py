"""Helpers that tests and benchmarks share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / 'configs'
COCO = CONFIGS / 'detection' / 'faster_rcnn'
UPERNET = CONFIGS / 'segmentation' / 'upernet'
DEEPLAB = CONFIGS / 'segmentation' / 'deeplabv3plus'
BEIT = 'beit-base_upernet_8xb2-160k_ade20k-512x512.py'


def shared_data() -> Path:
    """Folder of real images for tests and studies, by MMAIB_SHARED_DATA."""
    default = REPOSITORY.parent / 'shared' / 'data'
    return Path(os.environ.get('MMAIB_SHARED_DATA', default))


def loss(model: Any, data: dict) -> dict[str, Any]:
    """The loss dict of a training step's forward."""
    model.train()
    return model(**model.data_preprocessor(data, training=True), mode='loss')


def predict(model: Any, data: dict) -> list:
    """Predictions of a batch."""
    model.eval()
    with torch.no_grad():
        return model.test_step(data)
