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
    if not shared_data().is_dir():
        skip = pytest.mark.skip(
            reason=f'no real images in {shared_data()} (MMAIB_SHARED_DATA)'
        )
        for item in items:
            if item.get_closest_marker('shared_data'):
                item.add_marker(skip)
