import logging
import os
from functools import partial

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from support import shared_data
from torch.utils.data import DataLoader

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))

# One line a parameter at each initialisation would bury a failure's report.
MMLogger.get_instance('mmengine', log_level=logging.WARNING)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Answers(BaseMetric):
    """The mean of what a base model answers, where the least change shows."""

    default_prefix = 'base'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            answer = [
                sample[name][field].double().sum().item()
                for name, field in (
                    ('pred_instances', 'scores'),
                    ('pred_instances', 'bboxes'),
                    ('seg_logits', 'data'),
                )
                if name in sample
            ]
            if 'pred_score' in sample:
                answer.append(sample['pred_score'].double()[0].item())
            assert answer
            self.results.append(sum(answer))

    def compute_metrics(self, results):
        return dict(answer=sum(results) / len(results))


@pytest.fixture
def new_runner(tmp_path):
    """A Runner of a built model on a batch of inputs, three images of which
    or fewer are validated, tested and, with ``steps``, trained on."""

    def build(model, data, hooks=(), batch_size=1, steps=0, **options):
        samples = [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(data['inputs'], data['data_samples'])
        ]
        load = partial(DataLoader, samples, collate_fn=pseudo_collate)
        fields = dict(
            val_dataloader=load(batch_size=batch_size),
            test_dataloader=load(batch_size=batch_size),
            val_cfg=dict(),
            test_cfg=dict(),
            val_evaluator=Evaluator([Answers()]),
            test_evaluator=Evaluator([Answers()]),
        )
        if steps:
            fields.update(
                train_dataloader=load(batch_size=len(samples)),
                train_cfg=dict(
                    by_epoch=False, max_iters=steps, val_interval=steps
                ),
                optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-2)),
            )
        return Runner(
            model=model,
            work_dir=str(tmp_path),
            experiment_name=f'{tmp_path.name}{len(list(tmp_path.iterdir()))}',
            custom_hooks=list(hooks),
            randomness=dict(seed=0),
            log_level='ERROR',
            **{**fields, **options},
        )

    return build


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
