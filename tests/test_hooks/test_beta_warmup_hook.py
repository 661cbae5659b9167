from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from torch import nn

from mmaib.hooks import BetaWarmupHook
from mmaib.layers import AttentiveBottleneck, GaussianEncoder, InformationGate


def test_the_factor_rises_from_begin_to_end():
    hook = BetaWarmupHook(begin=2, end=6)
    found = [hook.factor(step) for step in range(8)]
    assert found == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


class OwnEncoder(GaussianEncoder):
    """A user's, from a module of theirs."""


@pytest.fixture
def model():
    return nn.ModuleDict(
        dict(
            encoder=GaussianEncoder(2, 3, beta=0.01),
            bottleneck=AttentiveBottleneck(2, beta=0.5),
            own=OwnEncoder(2, 3, beta=0.1),
            without=GaussianEncoder(2, 3, beta=0.0),
        )
    )


@pytest.mark.parametrize('by_epoch', [True, False])
def test_every_beta_follows_the_step(model, by_epoch):
    hook = BetaWarmupHook(end=4, by_epoch=by_epoch)
    runner = SimpleNamespace(model=model, hooks=[], iter=0, epoch=0)
    hook.before_train(runner)
    # 3 comes as after a resume, without what lies before it
    for step, factor in ((0, 0.0), (3, 0.75), (9, 1.0)):
        runner.iter, runner.epoch = (9, step) if by_epoch else (step, 9)
        hook.before_train_iter(runner, 0)
        assert model['encoder'].beta == pytest.approx(factor * 0.01)
        assert model['bottleneck'].beta == pytest.approx(factor * 0.5)
        assert model['own'].beta == pytest.approx(factor * 0.1)
        assert model['without'].beta == 0
        hub = MessageHub.get_current_instance()
        assert hub.get_scalar('train/beta_factor').current() == factor
    # what was interrupted leaves the config's betas
    runner.iter = runner.epoch = 1
    hook.before_train_iter(runner, 0)
    hook.after_train(runner)
    assert model['encoder'].beta == 0.01


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(end=0), 'end must be >= 1, got 0'),
        (dict(end=3, begin=3), 'end must be >= 4'),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        BetaWarmupHook(**fields)


def test_a_model_without_a_kl():
    hook = BetaWarmupHook(end=3)
    with pytest.raises(ValueError, match='Linear has no layer with beta > 0'):
        hook.before_train(SimpleNamespace(model=torch.nn.Linear(1, 1)))


@pytest.mark.parametrize('beta', [0.0, 0.1])
def test_gates_fade_in_with_or_without_a_price(beta):
    model = nn.ModuleDict(
        dict(
            first=InformationGate(2, beta=beta),
            second=AttentiveBottleneck(
                2, modulation=dict(type='mmaib.InformationGate', beta=beta)
            ),
        )
    )
    gates = [model['first'], model['second'].modulation]
    hook = BetaWarmupHook(end=4)
    runner = SimpleNamespace(model=model, hooks=[], iter=0, epoch=0)
    hook.before_train(runner)
    for step, factor in ((0, 0.0), (3, 0.75), (9, 1.0)):
        runner.iter = step
        hook.before_train_iter(runner, 0)
        assert [gate.strength.item() for gate in gates] == [factor] * 2
        assert [gate.beta for gate in gates] == [factor * beta] * 2
    # what an interruption left: the config's price, the gate as far as it was
    runner.iter = 1
    hook.before_train_iter(runner, 0)
    hook.after_train(runner)
    assert [gate.beta for gate in gates] == [beta] * 2
    assert [gate.strength.item() for gate in gates] == [0.25] * 2


@pytest.mark.parametrize(
    'ema',
    [
        dict(momentum=0.1),
        dict(ema_type='StochasticWeightAverage'),
        dict(ema_type='mmdet.ExpMomentumEMA', momentum=2e-4, gamma=4),
    ],
)
def test_an_average_with_buffers_has_the_strength_itself(ema):
    model = nn.ModuleDict(dict(gate=InformationGate(2), fc=nn.Linear(1, 1)))
    hooks = [BetaWarmupHook(end=4), EMAHook(update_buffers=True, **ema)]
    init_default_scope('mmdet')
    runner = SimpleNamespace(
        model=model, hooks=hooks, iter=0, epoch=0, max_iters=8
    )
    for when in ('before_run', 'before_train'):
        for hook in hooks:
            getattr(hook, when)(runner)
    gate = model['gate']
    for runner.iter in range(8):
        with torch.no_grad():
            model['fc'].weight.fill_(runner.iter)
        for hook in hooks:
            hook.before_train_iter(runner, 0)
        for hook in hooks:
            hook.after_train_iter(runner, 0)
        factor = min(runner.iter / 4, 1)
        trained = model['fc'].weight.item()
        hooks[1].before_val_epoch(runner)
        assert gate.strength.item() == pytest.approx(factor, abs=1e-6)
        averaged = model['fc'].weight.item()
        hooks[1].after_val_epoch(runner)
        assert gate.strength.item() == pytest.approx(factor, abs=1e-6)
    # what is an average is one
    assert averaged < trained - 0.1


def test_a_beta_of_zero_is_none_to_warm_up():
    runner = SimpleNamespace(model=GaussianEncoder(2, 3, beta=0.0))
    with pytest.raises(ValueError, match='no layer with beta > 0'):
        BetaWarmupHook(end=4).before_train(runner)
