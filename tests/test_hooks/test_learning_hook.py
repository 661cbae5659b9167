"""mmaib's layers in what a base model freezes: they learn, or it is said."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from support import base_models
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch import nn

from mmaib.hooks import learning_hook
from mmaib.hooks.learning_hook import LearningHook
from mmaib.losses import Reporter
from mmaib.models import IBAttention, with_aux_losses

PLUGIN = dict(
    cfg=dict(type='mmaib.IBAttention', quantizer=dict(num_anchors=5)),
    stages=(True, True, False, False),
    position='after_conv3',
)
SGD = dict(optimizer=dict(type='SGD', lr=0.1))


def frozen_stage(name, **fields):
    """A base model with plug-ins in the first two stages, the first frozen."""
    cfg = base_models.config(name)
    cfg.model.backbone.update(
        frozen_stages=1, plugins=[PLUGIN], zero_init_residual=False
    )
    cfg.model.update(type='mmaib.WithAuxLosses', base=cfg.model.type, **fields)
    return cfg


def plugins(model):
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, IBAttention)
    }


# RetinaNet of mmdet; DeepLabV3+ of mmseg, whose ResNet takes plug-ins too
@pytest.mark.parametrize('name', ['RetinaNet', 'DeepLabV3+'])
def test_a_plugin_in_a_frozen_stage_learns_and_the_stage_does_not(name):
    cfg = frozen_stage(name)
    model = base_models.build(cfg)
    data = base_models.inputs(cfg)
    wrapper = build_optim_wrapper(model, SGD)
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        model.eval()  # as a validation does
        model.train()
        model.train_step(copy.deepcopy(data), wrapper)
    found = plugins(model)
    assert any('layer1.' in name for name in found)
    assert all(layer.training for layer in found.values())
    moved = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    for name in found:
        for key in ('attention.mean_conv.bias', 'quantizer.anchors'):
            assert f'{name}.{key}' in moved
    stage = {
        key
        for key in moved
        if key.startswith(('backbone.stem', 'backbone.layer1'))
    }
    assert all('ib_attention' in key for key in stage), stage
    assert any(key.startswith('backbone.layer2.0.conv') for key in moved)


def test_with_the_base_model_frozen_a_plugin_in_its_stage_learns():
    model = base_models.build(frozen_stage('RetinaNet', frozen='base'))
    model.train()
    for name, layer in plugins(model).items():
        assert layer.training, name
        assert all(p.requires_grad for p in layer.parameters()), name
    assert not model.backbone.layer2.training
    assert not any(p.requires_grad for p in model.bbox_head.parameters())


def test_what_a_user_froze_stays_frozen():
    model = base_models.build(frozen_stage('RetinaNet'))
    layer = next(iter(plugins(model).values()))
    layer.quantizer.anchors.requires_grad_(False)
    model.train()
    assert not layer.quantizer.anchors.requires_grad
    assert layer.attention.mean_conv.weight.requires_grad
    average = copy.deepcopy(model).requires_grad_(False)
    average.train()
    assert not any(p.requires_grad for p in average.parameters())


# What is said


class Layer(Reporter, nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 3)
        self.anchors = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.map(x) * self.anchors


class Base(nn.Module):
    """Three layers one after the other."""

    def __init__(self, detaches=()):
        super().__init__()
        self.detaches = detaches
        self.stages = nn.ModuleList(Layer() for _ in range(3))
        self.frozen_exclude = ['norm']
        self.freeze_trunk = False

    def loss(self, x):
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.detaches:
                x = x.detach()
        return {'loss': x.mean()}


@pytest.fixture
def said(monkeypatch):
    messages = []

    def keep(text, **_):
        messages.append(text)

    monkeypatch.setattr(learning_hook, 'print_log', keep)
    return messages


def step(model, wrapper):
    """The hook around the first steps of a training."""
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    hook = LearningHook()
    hook.before_train(runner)
    yield
    for number in range(2):
        model.loss(torch.rand(4, 3))['loss'].backward()
        hook.after_train_iter(runner, number)
        yield


def test_what_learns_is_passed_over(said):
    model = with_aux_losses(Base)()
    for _ in step(model, build_optim_wrapper(model, SGD)):
        assert said == []
    assert not any(p._backward_hooks for p in model.parameters())


def test_what_is_frozen_is_named_with_the_field_before_the_first_step(said):
    model = with_aux_losses(Base)()
    model.stages[1].requires_grad_(False)
    model.stages[2].anchors.requires_grad_(False)
    steps = step(model, build_optim_wrapper(model, SGD))
    next(steps)
    assert said == [
        'stages.1 (Layer) will not learn: all of it is frozen '
        "(requires_grad=False), see model.frozen_exclude=['norm']",
        'stages.2 (Layer) will not learn: anchors is frozen '
        "(requires_grad=False), see model.frozen_exclude=['norm']",
    ]
    assert len(said) == 2
    assert len([*steps]) == 2
    assert len(said) == 2


@pytest.mark.parametrize('several', [False, True])
def test_a_learning_rate_of_0_is_named_but_not_a_warm_up(said, several):
    model = with_aux_losses(Base)()
    keys = dict(anchors=dict(lr_mult=0.0))
    wrapper = build_optim_wrapper(
        model, dict(SGD, paramwise_cfg=dict(custom_keys=keys))
    )
    for group in wrapper.param_groups:  # as a scheduler leaves them
        group['initial_lr'], group['lr'] = group['lr'], 0.0
    if several:
        wrapper = OptimWrapperDict(model=wrapper)
    [*step(model, wrapper)]
    assert [text.partition(',')[0] for text in said] == [
        f'stages.{number} (Layer) will not learn: anchors has a learning '
        'rate of 0'
        for number in range(3)
    ]


def test_what_no_gradient_reaches_is_named_after_the_first_step(said):
    model = with_aux_losses(Base)(detaches=[1])
    steps = step(model, build_optim_wrapper(model, SGD))
    next(steps)
    assert said == []
    assert len([*steps]) == 2
    assert [text.partition(' the first')[0] for text in said] == [
        f'stages.{number} (Layer) will not learn: all of it got no gradient in'
        for number in range(2)
    ]


def test_a_teacher_is_frozen_on_purpose(said):
    model = with_aux_losses(Base)()
    model.teacher = with_aux_losses(Base)().requires_grad_(False)
    [*step(model, build_optim_wrapper(model, SGD))]
    assert said == []


@pytest.mark.parametrize('kind', ['detector', 'segmentor', 'classifier'])
def test_of_the_papers_models_all_learns(kind, said):
    """Also behind a critic, whose two losses reach it by two ways."""
    if kind == 'detector':
        tools, cfg = det, det.shrink(det.aib_config('aib-qt'))
        cfg.model.roi_head.bbox_head.latent.critic = dict()
        model = det.build(cfg)
    elif kind == 'segmentor':
        tools, model = seg, seg.make()
    else:
        tools, cfg = cls, cls.shrink(cls.config('wrn28-10-aib-qt'))
        model = cls.build(cfg)
    wrapper = build_optim_wrapper(model, SGD)
    hook = LearningHook()
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    hook.before_train(runner)
    assert sum(map(len, hook._waiting.values())) > 5
    model.train()
    model.train_step(tools.inputs(), wrapper)
    hook.after_train_iter(runner, 0)
    assert said == []
