"""What tests share: small models, their inputs, the matrix."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / 'configs'
COCO = CONFIGS / 'detection' / 'faster_rcnn'
UPERNET = CONFIGS / 'segmentation' / 'upernet'
CLASSIFICATION = CONFIGS / 'classification'
DEEPLAB = CONFIGS / 'segmentation' / 'deeplabv3plus'
BEIT = 'beit-base_upernet_8xb2-160k_ade20k-512x512.py'

SAMPLE = CONFIGS / 'sample'
# the sample configs that trainings of tests start from
TREES = (
    SAMPLE / 'trees' / 'aib-qt-literal_faster-rcnn_lite0_fpn_6e_trees-256.py'
)
DIGITS = (
    SAMPLE
    / 'digits'
    / 'aib-qt-literal_upernet_lite0_1xb8-500_digits-128x128.py'
)
# for --cfg-options: short trainings wait for workers to start
NO_WORKERS = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
)

MODULATIONS = ('scale', 'scale_residual', 'bias', 'concat')
LATENTS = (
    ('GaussianEncoder', 'closed_form'),
    ('GaussianEncoder', 'adversarial'),
    ('AdditiveNoiseEncoder', 'adversarial'),
    ('PropagatedNoiseEncoder', 'adversarial'),
)
# modulation, (encoder, KL), whether the map is quantised: Section 3.3
COMBINATIONS = [*product(MODULATIONS, LATENTS, (False, True))]


def new_python(code: str, *words: str) -> subprocess.CompletedProcess:
    """What code does in a new interpreter, from the repository."""
    return subprocess.run(
        [sys.executable, '-c', code, *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )


def latent_config(encoder: str, kl: str) -> dict[str, Any]:
    """A head's field ``latent`` for one of ``LATENTS``."""
    config: dict[str, Any] = dict(type=f'mmaib.{encoder}')
    if kl == 'adversarial':
        config['critic'] = dict()
    return config


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


def table_cells(text):
    """The cells of each line of Markdown that is a table's."""
    return [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in text.splitlines()
        if line.startswith('|')
    ]
