"""The base model's metrics under maps in the wrong place."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from support import classification as cls
from support import segmentation as seg
from torch import nn

from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.hooks import AttentionEvalHook
from mmaib.layers import MapDistribution
from mmaib.layers.capture import MAP_CHANGES


def shuffle(x):
    """The order that `shuffled` promises to keep between calls."""
    height, width = x.shape[-2:]
    generator = torch.Generator().manual_seed(height * width)
    order = torch.randperm(height * width, generator=generator)
    cells = [x[..., i // width, i % width] for i in order.tolist()]
    return torch.stack(cells, -1).unflatten(-1, (height, width))


BY_HAND = {
    'mirror': lambda x: torch.stack(x.unbind(-1)[::-1], -1),
    'flatten': lambda x: torch.ones_like(x) * x.mean((2, 3), keepdim=True),
    'shuffle': shuffle,
}


class Replaced(nn.Module):
    """A map whose scores are put elsewhere by hand."""

    def __init__(self, attention, move):
        super().__init__()
        self.attention, self.move = attention, move

    def forward(self, *args, **kwargs):
        maps = self.attention(*args, **kwargs)
        return MapDistribution(self.move(maps.mean), self.move(maps.std))


def segmentor(bottleneck=None):
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    cfg.model.test_draws = 'mean'
    cfg.model.neck.bottleneck = bottleneck or dict(
        modulation=dict(type='mmaib.InformationGate')
    )
    torch.manual_seed(0)
    model = seg.build(cfg).eval()
    conv = model.neck.bottleneck.attention.mean_conv
    nn.init.normal_(conv.weight, std=0.2)
    return model


def changed_by_hand(model, change):
    model = copy.deepcopy(model)
    bottleneck = model.neck.bottleneck
    bottleneck.attention = Replaced(bottleneck.attention, BY_HAND[change])
    return model


def data_and_evaluator(runner):
    return runner.val_loop.dataloader, runner.val_loop.evaluator


@pytest.mark.parametrize(
    'bottleneck', [None, dict(quantizer=dict(num_anchors=8))]
)
@pytest.mark.parametrize('change', MAP_CHANGES)
def test_it_is_the_metric_of_a_model_changed_by_hand(
    new_runner, change, bottleneck
):
    model, data = segmentor(bottleneck), seg.inputs(((64, 64),) * 3)
    runner = new_runner(model, data, batch_size=2)
    found = ablation_metrics(model, *data_and_evaluator(runner), [change])
    moved = changed_by_hand(model, change)
    expected = new_runner(moved, data, batch_size=2).val()
    assert found == {f'{change}/base/answer': expected['base/answer']}
    whole = new_runner(model, data, batch_size=2).val()
    assert abs(found[f'{change}/base/answer'] - whole['base/answer']) > 1e-3
    # and the maps are back where they were
    assert runner.val() == whole


def test_a_constant_map_loses_nothing_to_the_bit(new_runner):
    """1 / 2 everywhere: its mean is exact."""
    model, data = segmentor(), seg.inputs(((64, 64),) * 3)
    conv = model.neck.bottleneck.attention.mean_conv
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    runner = new_runner(model, data)
    found = ablation_metrics(model, *data_and_evaluator(runner))
    (answer,) = runner.val().values()
    assert [answer - value for value in found.values()] == [0.0] * 3
    assert [*found] == [f'{change}/base/answer' for change in MAP_CHANGES]


def test_metrics_of_maps_are_left_alone_and_the_mode_too(new_runner):
    model, data = segmentor(), seg.inputs()
    runner = new_runner(model, data)
    loader, evaluator = data_and_evaluator(runner)
    # without a hook it would raise at its first batch
    evaluator.metrics.append(AttentionMetric(prefix='maps'))
    for mode in (True, False):
        model.train(mode)
        found = ablation_metrics(model, loader, evaluator, ['flatten'])
        assert [*found] == ['flatten/base/answer']
        assert model.training is mode
    assert len(evaluator.metrics) == 2
    assert isinstance(evaluator, Evaluator)


def test_a_model_without_maps_is_told(new_runner):
    model, data = cls.make(cls.RESNET), cls.inputs()
    runner = new_runner(model, data)
    with pytest.raises(ValueError, match='no AttentiveBottleneck'):
        ablation_metrics(model, *data_and_evaluator(runner))


class Users(BaseMetric):
    """A metric that writes a line an image, and counts them in the end."""

    default_prefix = 'users'

    def __init__(self, lines, fails_at=None):
        super().__init__()
        self.out_file_path = str(lines)
        self.fails_at = fails_at

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if len(self.results) == self.fails_at:
                raise RuntimeError('of the user')
            value = sample['seg_logits']['data'].double().sum().item()
            with open(self.out_file_path, 'a') as file:
                file.write(f'{value}\n')
            self.results.append(value)

    def compute_metrics(self, results):
        values = [*map(float, Path(self.out_file_path).read_text().split())]
        return dict(mean=float(np.mean(values[-len(results) :])))


def model_and_inputs():
    return segmentor(), seg.inputs(((64, 64),) * 3)


def test_files_of_a_test_hold_the_answers_of_the_models_own_map(
    new_runner, tmp_path
):
    """Those of the changed maps are figures alone."""
    from mmseg.evaluation import IoUMetric

    model, data = model_and_inputs()
    for number, sample in enumerate(data['data_samples']):
        sample.set_metainfo(dict(img_path=f'{number}.jpg'))
    written = {}
    for name, changes in (('with', ['mirror', 'shuffle']), ('without', [])):
        folder = tmp_path / 'out' / name
        folder.mkdir(parents=True)
        iou = IoUMetric(output_dir=str(folder / 'png'), format_only=True)
        dump = DumpResults(str(folder / 'answers.pkl'))
        runner = new_runner(
            model,
            data,
            [AttentionEvalHook(ablations=changes)],
            test_evaluator=Evaluator([Users(folder / 'lines'), iou, dump]),
        )
        runner.test_evaluator.dataset_meta = dict(classes=['a'] * 5)
        assert runner.test()['users/mean']
        answers = pickle.loads((folder / 'answers.pkl').read_bytes())
        written[name] = {
            path.name: path.read_bytes()
            for path in folder.rglob('*')
            if path.is_file() and path != folder / 'answers.pkl'
        }
        written[name]['answers'] = [
            x['seg_logits']['data'].numpy().tobytes() for x in answers
        ]
    assert written['with'] == written['without']
    assert len(written['with']) == 2 + len(data['inputs'])


def test_figures_of_a_metric_that_writes_are_those_of_changed_maps(
    new_runner, tmp_path
):
    model, data = model_and_inputs()
    lines = tmp_path / 'lines.csv'
    metric = Users(lines)
    runner = new_runner(model, data, val_evaluator=Evaluator([metric]))
    loop = runner.val_loop
    found = ablation_metrics(
        model, loop.dataloader, loop.evaluator, ['open', 'mirror']
    )
    assert found['open/users/mean'] != found['mirror/users/mean']
    assert not lines.exists()
    assert metric.results == []
    # and in the loop it writes as ever
    runner.val()
    assert len(lines.read_text().split()) == 3


@pytest.mark.parametrize('training', [True, False])
def test_an_exception_leaves_the_model_and_the_metric_as_they_were(
    new_runner, tmp_path, training
):
    model, data = model_and_inputs()
    lines = tmp_path / 'lines.csv'
    metric = Users(lines, fails_at=1)
    runner = new_runner(model, data, val_evaluator=Evaluator([metric]))
    loop = runner.val_loop
    model.train(training)
    with pytest.raises(RuntimeError, match='of the user'):
        ablation_metrics(model, loop.dataloader, loop.evaluator, ['mirror'])
    assert model.training is training
    assert metric.results == []
    assert metric.out_file_path == str(lines)
