import pytest
from mmengine.hooks import Hook, LoggerHook
from support import classification as cls

from mmaib.hooks import MonitorHook

BY_EPOCH = dict(by_epoch=True, max_epochs=2, val_interval=2)


class Seen(Hook):
    """The steps that had monitors, and those that were logged with them."""

    def __init__(self):
        self.computed, self.logged = [], []

    def before_train(self, runner):
        add = runner.visualizer.add_scalars

        def keep(tag, step, file_path=None):
            if 'attention_contrast' in tag:
                self.logged.append(step)
            add(tag, step=step, file_path=file_path)

        runner.visualizer.add_scalars = keep

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        assert 'loss_vq' in outputs
        if 'attention_contrast' in outputs:
            self.computed.append(runner.iter + 1)


class OwnLogger(LoggerHook):
    def after_train_iter(self, *args, **kwargs):
        super().after_train_iter(*args, **kwargs)


def steps(new_runner, logger, **options):
    model, seen = cls.make(), Seen()
    if 'train_cfg' in options:
        options['train_dataloader'] = dict(
            dataset=cls_samples(6), batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        )  # fmt: skip
    runner = new_runner(
        model, cls.inputs(2), [MonitorHook(), seen], steps=6,
        default_hooks=dict(logger=logger), **options,
    )  # fmt: skip
    runner.train()
    assert model.monitors
    return seen


def cls_samples(count):
    data = cls.inputs(count)
    return [
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(data['inputs'], data['data_samples'])
    ]


@pytest.mark.parametrize(
    ('logger', 'options', 'expected'),
    [
        # one batch is all of the data
        (dict(interval=2), {}, [1, 2, 4, 6]),
        (dict(interval=4), {}, [1, 4]),
        (dict(interval=2), dict(train_cfg=BY_EPOCH), [2, 5]),
        (
            dict(interval=2, ignore_last=False),
            dict(train_cfg=BY_EPOCH),
            [2, 3, 5, 6],
        ),
        (dict(interval=9), dict(train_cfg=BY_EPOCH), [3, 6]),
    ],
)
def test_monitors_are_of_the_steps_that_are_logged(
    new_runner, logger, options, expected
):
    seen = steps(new_runner, dict(type='LoggerHook', **logger), **options)
    assert seen.computed == seen.logged == expected


def test_of_every_step_where_others_decide(new_runner):
    own = dict(type=OwnLogger, interval=3)
    assert steps(new_runner, own).computed == [*range(1, 7)]
    means = dict(
        data_src='attention_contrast', method_name='mean', window_size=3
    )
    processor = dict(type='LogProcessor', by_epoch=False, custom_cfg=[means])
    logger = dict(type='LoggerHook', interval=3)
    seen = steps(new_runner, logger, log_processor=processor)
    assert seen.computed == [*range(1, 7)]
