"""The base model's metrics under maps in the wrong place."""

import copy

import pytest
import torch
from mmengine.evaluator import Evaluator
from support import classification as cls
from support import segmentation as seg
from torch import nn

from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.layers import MapDistribution
from mmaib.layers.map_changes import MAP_CHANGES


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
