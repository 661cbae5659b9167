"""Neck, heads and losses on a CUDA device that is not there: nothing of
theirs is made on another device, and nothing waits for the GPU.

Torch's fake tensors have a device and a shape and no numbers. An operator
that mixes devices raises, and so does one whose result's shape, or a number
on the CPU, depends on numbers on the GPU. There is no backward: torch's engine
asks the driver for a stream.
"""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmaib.losses import collect
from mmaib.models import AIBNeck, AuxLossMixin
from mmaib.registry import MODELS
from mmaib.sampling.draws import Draws

CUDA = torch.device('cuda', 0)
LATENTS = {
    'closed form': dict(),
    'critic': dict(critic=dict()),
    'additive': dict(type='mmaib.AdditiveNoiseEncoder', critic=dict()),
    'propagated': dict(type='mmaib.PropagatedNoiseEncoder', critic=dict()),
}
FPN = dict(type='FPN', in_channels=[8, 8], out_channels=8, num_outs=3)
BOTTLENECKS = {
    'quantised': dict(quantizer=dict(num_anchors=20)),
    'continuous': dict(beta=1e-3, attention=dict(logit_norm=True)),
    'bias': dict(modulation=dict(mode='bias', init='identity')),
    'noisy': dict(noise=dict(mode='additive')),
}
every_latent = pytest.mark.parametrize('latent', LATENTS)
every_bottleneck = pytest.mark.parametrize('bottleneck', BOTTLENECKS)


class OnCuda(TorchDispatchMode):
    """Every tensor that is computed lies on the fake GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                assert leaf.device == CUDA, func
        return out


@pytest.fixture(autouse=True)
def fake():
    """Everything is fake, and what a test makes is on the GPU."""
    with FakeTensorMode() as mode:
        yield mode


def build(cls, scope=None, **fields):
    """A module on the fake GPU."""
    if scope:
        init_default_scope(scope)
    with CUDA:
        built = cls(**fields) if callable(cls) else MODELS.build(fields)
    assert all(p.device == CUDA for p in built.parameters())
    return built


def features(*shapes):
    return [
        torch.empty(shape, device=CUDA, requires_grad=True) for shape in shapes
    ]


def step(module, draws, call):
    """Outputs and reports of a training step's forward."""
    module.train()
    with OnCuda(), draws.open(CUDA), collect() as aux:
        outputs = call()
        reports = aux.mean()
    return outputs, reports


@every_bottleneck
@pytest.mark.parametrize('draws', [Draws(1, 1), Draws(2, 2), Draws()])
@pytest.mark.parametrize('map_', ['per_level', 'shared'])
def test_a_neck(bottleneck, draws, map_):
    neck = build(
        AIBNeck, 'mmdet', bottleneck=BOTTLENECKS[bottleneck], neck=FPN,
        map=map_, in_channels=[8, 8, 8],
    )  # fmt: skip
    x = features((2, 8, 16, 12), (2, 8, 8, 6))
    out, reports = step(neck, draws, lambda: neck(x))
    assert len(out) == 3
    if bottleneck == 'quantised':
        assert {'loss_vq', 'anchors_used'} < reports.keys()
    with OnCuda(), torch.no_grad():
        assert neck.eval()(x)[0].shape == (2, 8, 16, 12)


@every_latent
def test_a_box_head(latent):
    head = build(
        None, 'mmdet', type='mmaib.AIBShared2FCBBoxHead', in_channels=8,
        fc_out_channels=16, roi_feat_size=7, num_classes=3,
        latent=LATENTS[latent],
    )  # fmt: skip
    (x,) = features((6, 8, 7, 7))
    (scores, deltas), reports = step(head, Draws(1, 2), lambda: head(x))
    assert (scores.shape, deltas.shape) == ((12, 4), (12, 12))
    assert ('loss_critic_cls' in reports) == ('critic' in LATENTS[latent])


@every_latent
def test_a_segmentors_head(latent):
    head = build(
        None, 'mmseg', type='mmaib.AIBUPerHead', in_channels=[8, 8],
        in_index=[0, 1], channels=16, num_classes=3, latent=LATENTS[latent],
        norm_cfg=dict(type='BN'), align_corners=False,
    )  # fmt: skip
    x = features((2, 8, 16, 16), (2, 8, 8, 8))
    logits, _ = step(head, Draws(1, 2), lambda: head(x))
    assert logits.shape == (4, 3, 16, 16)


@every_latent
def test_a_classifiers_head_and_its_loss(latent):
    from mmpretrain.structures import DataSample

    head = build(
        None, 'mmpretrain', type='mmaib.AIBClsHead', in_channels=8,
        latent_channels=16, num_classes=3, latent=LATENTS[latent],
    )  # fmt: skip
    (x,) = features((4, 8))
    samples = [
        DataSample().set_gt_label(torch.zeros(1, dtype=torch.long)).to(CUDA)
        for _ in range(4)
    ]
    losses, _ = step(head, Draws(1, 2), lambda: head.loss((x,), samples))
    assert losses['loss'].shape == ()


def test_what_a_model_reports():
    class Base(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.neck = AIBNeck(BOTTLENECKS['quantised'], in_channels=8)

        def loss(self, x):
            return {'loss_cls': self.neck(x)[0].mean()}

    model = build(type('Ours', (AuxLossMixin, Base), {}))
    with OnCuda():
        losses = model.train().loss(features((2, 8, 4, 4)))
    assert {'loss_vq', 'loss_commit', 'anchors_used'} < losses.keys()
    assert all(value.device == CUDA for value in losses.values())


@pytest.mark.parametrize(
    ('call', 'error'),
    [
        (lambda x: x + torch.ones(3), RuntimeError),
        (lambda x: x.sum().item(), DataDependentOutputException),
        (lambda x: x.long().bincount(), DynamicOutputShapeException),
        (lambda x: x[x > 0], DynamicOutputShapeException),
    ],
    ids=['device', 'item', 'bincount', 'mask'],
)
def test_what_would_wait_is_found(call, error):
    with pytest.raises(error):
        call(torch.empty(3, device=CUDA))
