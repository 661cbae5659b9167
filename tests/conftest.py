import logging
import os

import pytest
import torch
from mmengine.logging import MMLogger

from mmaib.testing import shared_data

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))

# One line a parameter at each initialisation would bury a failure's report.
MMLogger.get_instance('mmengine', log_level=logging.WARNING)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    reasons = {}
    if not shared_data().is_dir():
        reasons['shared_data'] = (
            f'no real images in {shared_data()} (MMAIB_SHARED_DATA)'
        )
    if not torch.cuda.is_available() and 'MMAIB_TEST_DEVICE' not in os.environ:
        reasons['gpu'] = 'no CUDA device'
    for name, reason in reasons.items():
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
