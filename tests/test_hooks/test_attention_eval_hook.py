import copy
import json

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from support import classification as cls
from torch import nn

from mmaib.evaluation import ablation_metrics
from mmaib.hooks import AttentionEvalHook
from mmaib.layers.map_changes import MAP_CHANGES

NAMES = {f'ablation/{change}/base/answer' for change in MAP_CHANGES}


def classifier(**fields):
    model = cls.make(**fields)
    conv = model.neck.bottleneck.attention.mean_conv
    nn.init.normal_(conv.weight, std=0.3)
    for parameter in model.head.parameters():
        parameter.data *= 0.01  # or each image would be sure of its class
    return model.eval()


def inputs():
    """Whose features have 4x4 positions."""
    return cls.inputs(size=128)


def hook(ablations=tuple(MAP_CHANGES)):
    return AttentionEvalHook(ablations=ablations)


def logged(folder):
    """Every entry of the runs' logs, in order."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if any('ablation/' in key for key in line)]


def torch_hooks(model):
    """How many hooks of torch's watch a model's layers."""
    return sum(
        len(module._forward_hooks)
        for name, module in model.named_modules()
        if name != 'data_preprocessor'  # which has one of its own
    )


def test_after_a_test_the_drops_are_logged(new_runner, tmp_path):
    model, data = classifier(), inputs()
    runner = new_runner(model, data, [hook()], 2)
    found = runner.test()
    assert 'attention/contrast' in found
    assert not any(name.startswith('ablation/') for name in found)
    (entry,) = logged(tmp_path)
    loop = runner.test_loop
    expected = ablation_metrics(model, loop.dataloader, loop.evaluator)
    assert {k: v for k, v in entry.items() if k != 'step'} == {
        f'ablation/{name}': pytest.approx(value)
        for name, value in expected.items()
    }
    assert set(entry) >= NAMES
    moved = {round(entry[name], 9) for name in NAMES}
    assert len({*moved, round(found['base/answer'], 9)}) == 4
    assert torch_hooks(model) == 0


def test_after_a_training_the_drops_of_its_last_weights_are_logged(
    new_runner, tmp_path
):
    model, data = classifier(), inputs()
    runner = new_runner(model, data, [hook(['mirror'])], 2, steps=3)
    runner.train()
    (entry,) = logged(tmp_path)
    loop = runner.val_loop
    expected = ablation_metrics(
        runner.model, loop.dataloader, loop.evaluator, ['mirror']
    )
    assert entry.pop('step') == 2
    assert entry == {
        'ablation/mirror/base/answer': pytest.approx(
            expected['mirror/base/answer']
        )
    }
    # a second metric is not added at a second validation
    runner.val_loop.run()
    kinds = [type(m).__name__ for m in loop.evaluator.metrics]
    assert kinds == ['Answers', 'AttentionMetric']


def test_of_an_average_of_weights_the_average_is_measured(
    new_runner, tmp_path
):
    model, data = classifier(), inputs()
    average = dict(type='EMAHook', momentum=0.3)
    runner = new_runner(model, data, [average, hook(['flatten'])], 2, steps=4)
    runner.train()
    raw = copy.deepcopy(runner.model.state_dict())
    (entry,) = logged(tmp_path)
    (ema,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    kept = ema.ema_model.module
    loop = runner.val_loop
    of = {
        name: ablation_metrics(m, loop.dataloader, loop.evaluator, ['flatten'])
        for name, m in (('average', copy.deepcopy(kept)), ('raw', model))
    }
    found = entry['ablation/flatten/base/answer']
    # the buffers of an average are the model's
    assert found == pytest.approx(
        of['average']['flatten/base/answer'], abs=1e-4
    )
    assert found != pytest.approx(of['raw']['flatten/base/answer'], abs=1e-3)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, raw[name]), name


@pytest.mark.parametrize('loop', ['val', 'test', 'train'])
def test_a_model_without_maps_is_evaluated_as_ever(new_runner, tmp_path, loop):
    data = inputs()

    def run(hooks):
        torch.manual_seed(0)
        model = cls.make(cls.RESNET)
        runner = new_runner(model, data, hooks, 2, steps=2)
        found = getattr(runner, loop)()
        if loop == 'train':
            found = runner.val_loop.run()
        return found, model.state_dict()

    (plain, weights), (ours, ours_weights) = run([]), run([hook()])
    assert plain == ours
    assert [*ours] == ['base/answer']
    torch.testing.assert_close(weights, ours_weights, rtol=0, atol=0)
    assert logged(tmp_path) == []


class Count(BaseMetric):
    default_prefix = 'base'

    def process(self, data_batch, data_samples):
        self.results += [1.0] * len(data_samples)

    def compute_metrics(self, results):
        return dict(images=sum(results))


def test_maps_of_several_data_sets_are_measured_together(new_runner, tmp_path):
    """mmdet's evaluator of them pairs metrics with data sets, ours is one
    too many."""
    from mmdet.evaluation import MultiDatasetsEvaluator

    evaluator = MultiDatasetsEvaluator([Count(), Count()], ['a', 'b'])
    evaluator.dataset_meta = dict(cumulative_sizes=[1, 3])
    model, data = classifier(), inputs()
    alone = new_runner(model, data, [hook([])], 2).test()
    runner = new_runner(
        model, data, [hook(['mirror'])], 2, test_evaluator=evaluator
    )
    for _ in range(2):  # nothing is kept from one to the next
        found = runner.test()
        bases = {k: v for k, v in found.items() if 'base' in k}
        assert bases == {'a/base/images': 1, 'b/base/images': 2}
        own = [name for name in alone if name.startswith('attention/')]
        assert len(own) > 1
        for name in own:
            assert found[name] == pytest.approx(alone[name])
    assert 'evaluate' not in vars(runner.test_loop.evaluator)
    assert 'ablation/mirror/b/base/images' in logged(tmp_path)[-1]


class TTA(BaseTTAModel):
    def test_step(self, data):
        return self.module.test_step(data)

    def merge_preds(self, samples):
        return samples


def test_maps_of_augmented_images_are_left_alone(new_runner, tmp_path):
    model = TTA(module=classifier())
    runner = new_runner(model, inputs(), [hook()], 2)
    assert [*runner.test()] == ['base/answer']
    assert logged(tmp_path) == []


class Falling(Hook):
    """Validations whose metric falls, so that the first one is the best."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.left = 9.0

    def before_val_epoch(self, runner):
        self.left -= 1
        metric = runner.val_loop.evaluator.metrics[0]
        metric.compute_metrics = lambda results, v=self.left: dict(answer=v)


def test_the_best_checkpoint_is_the_base_models(new_runner, tmp_path):
    model, data = classifier(), inputs()
    runner = new_runner(
        model, data, [hook(), Falling()], 2, steps=4,
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=2,
                save_best='auto', rule='greater',
            )
        ),
    )  # fmt: skip
    runner.train()
    (best,) = tmp_path.glob('best_*')
    assert best.name == 'best_base_answer_iter_2.pth'
    assert logged(tmp_path)


class Silent(BaseMetric):
    """As mmdet's of a detector that finds nothing."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {}


def test_where_the_base_model_has_no_metric_no_checkpoint_is_the_best(
    new_runner, tmp_path
):
    checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=2, save_best='auto'
    )
    runner = new_runner(
        classifier(), inputs(), [hook()], 2, steps=2,
        val_evaluator=Evaluator([Silent()]),
        default_hooks=dict(checkpoint=checkpoint),
    )  # fmt: skip
    runner.train()
    assert not list(tmp_path.glob('best_*'))
    assert logged(tmp_path) == []
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    assert 'attention/contrast' in log.read_text()


def test_a_crash_in_a_validation_leaves_the_next_one_whole(new_runner):
    model, data = classifier(), inputs()
    runner = new_runner(model, data, [hook()], 2)
    (metric,) = runner.val_evaluator.metrics
    metric.process, process = None, metric.process
    with pytest.raises(TypeError):
        runner.val()
    carried = []

    def counting(*args, **kwargs):
        carried.append(torch_hooks(model))
        process(*args, **kwargs)

    metric.process = counting
    metric.results.clear()
    found = runner.val()
    assert found == new_runner(model, data, [hook()], 2).val()
    assert carried == [3, 3]  # map, anchors, modulation: watched once
    assert torch_hooks(model) == 0


def test_a_change_that_is_none():
    with pytest.raises(ValueError, match="ablations must be one of.*'rotate'"):
        AttentionEvalHook(ablations=['rotate'])


class Written(BaseMetric):
    """Leaves a file at each evaluation."""

    default_prefix = 'written'

    def __init__(self, path):
        super().__init__()
        self.path = path

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        for path in (self.path, self.inside):
            path.write_text('written')
        return dict(count=len(results))


def test_a_confined_validation_writes_to_the_work_dir_alone(
    new_runner, tmp_path
):
    model, data = classifier(), inputs()
    outside = tmp_path.with_name(f'{tmp_path.name}.outside')
    for confined, exist in ((True, False), (False, True)):
        metric = Written(outside)
        metric.inside = tmp_path / f'inside_{confined}'
        hook = AttentionEvalHook(ablations=['mirror'], confined=confined)
        runner = new_runner(
            model, data, [hook], 2, steps=1, val_evaluator=Evaluator([metric])
        )
        runner.train()
        assert metric.inside.exists()
        assert outside.exists() is exist
    # a test writes as ever
    outside.unlink()
    hook = AttentionEvalHook(confined=True)
    new_runner(
        model, data, [hook], 2, test_evaluator=Evaluator([metric])
    ).test()
    assert outside.exists()


def test_confined_is_true_or_false():
    with pytest.raises(ValueError, match='confined must be one of.*outside'):
        AttentionEvalHook(confined='outside')
