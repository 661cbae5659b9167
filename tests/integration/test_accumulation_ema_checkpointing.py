"""What MMEngine and the base libraries do to a training, done to ours."""

import copy
import math
from functools import partial
from operator import attrgetter

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmengine.runner.activation_checkpointing import (
    turn_on_activation_checkpointing,
)
from support import detection as det
from support import loss
from support import segmentation as seg
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import checkpoint
from torch.utils.data import DataLoader

from mmaib.preflight.checkpoint import read_checkpoint

LIBRARIES = {'detector': det, 'upernet': seg, 'deeplab': seg}
SEGMENTORS = {
    'upernet': seg.UPERNET / f'aib-qt_{seg.BEIT}',
    'deeplab': seg.DEEPLAB
    / 'aib-qt_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
}
OWN = {
    'detector': {'loss_kl_cls', 'loss_kl_reg', 'loss_vq', 'loss_commit'},
    'upernet': {'loss_kl', 'loss_vq', 'loss_commit'},
    'deeplab': {'loss_kl_map', 'loss_vq', 'loss_commit'},
}
ANCHORS = 'neck.bottleneck.quantizer.anchors'
GATE = 'neck.bottleneck.modulation.gate'
IDENTITY = {'neck.bottleneck.modulation.init': 'identity'}


def config(kind, options):
    """A small aib-qt that evaluates at the mean."""
    if kind == 'detector':
        cfg = det.shrink(det.aib_config('aib-qt'))
    else:
        cfg = seg.shrink(seg.config(SEGMENTORS[kind]))
    cfg.model.test_draws = 'mean'
    for name, value in options.items():
        *parents, field = name.split('.')
        attrgetter('.'.join(['model', *parents]))(cfg)[field] = value
    return cfg


def make(kind, options=None):
    return LIBRARIES[kind].build(config(kind, options or {}))


def sgd(model, **options):
    """For one step, at a rate that lets small gradients move a weight."""
    optimizer = dict(type='SGD', lr=100)
    return build_optim_wrapper(model, dict(optimizer=optimizer, **options))


def backward(model, data):
    """Log and gradients of a step whose noise is the same each time."""
    torch.manual_seed(1)
    total, log = model.parse_losses(loss(model, copy.deepcopy(data)))
    total.backward()
    return log, {n: p.grad for n, p in model.named_parameters()}


# Gradients of several batches


def test_two_batches_accumulated_are_one_of_twice_the_size():
    norm = dict(type='GN', num_groups=4, requires_grad=True)
    options = {'train_draws': 'mean'}
    for head in ('decode_head', 'auxiliary_head'):
        options[f'{head}.dropout_ratio'] = 0
    # BatchNorm would know what else is in its batch.
    for part in ('neck.neck', 'decode_head', 'auxiliary_head'):
        options[f'{part}.norm_cfg'] = norm
    start = make('upernet', options)
    data = seg.inputs([(64, 64)] * 4)
    halves = [
        {key: value[part] for key, value in data.items()}
        for part in (slice(2), slice(2, 4))
    ]

    def update(batches, **accumulation):
        """What one step of SGD adds to each parameter."""
        model = copy.deepcopy(start).train()
        wrapper = sgd(model, **accumulation)
        for batch in batches:
            assert torch.equal(model.state_dict()[ANCHORS], anchors)
            model.train_step(batch, wrapper)
        return {
            name: (parameter - before).detach()
            for (name, parameter), before in zip(
                model.named_parameters(), start.parameters()
            )
        }

    anchors = start.state_dict()[ANCHORS]
    once, half = update([data]), update(halves[:1])
    for name, added in update(halves, accumulative_counts=2).items():
        assert torch.allclose(added, once[name], rtol=1e-5, atol=2e-6), name
    # The tolerance tells our losses, and half of the batch from all of it.
    assert once['decode_head.encoder.std.bias'].abs().min() > 1e-2
    assert (half[ANCHORS] - once[ANCHORS]).abs().max() > 1e-3


@pytest.mark.parametrize('kind', ['detector', 'upernet'])
def test_our_gradients_count_in_the_clipped_norm(kind):
    model, max_norm = make(kind), 1e-3
    wrapper = sgd(model, clip_grad=dict(max_norm=max_norm))
    stepped = {}

    def record(*_):
        stepped.update((n, p.grad) for n, p in model.named_parameters())

    wrapper.optimizer.register_step_pre_hook(record)
    wrapper.optimizer.zero_grad = lambda **_: None  # keep them to look at
    twin = copy.deepcopy(model)
    data = LIBRARIES[kind].inputs()
    _, unclipped = backward(twin, data)
    torch.manual_seed(1)
    model.train().train_step(copy.deepcopy(data), wrapper)
    before, after = (
        torch.stack([g.norm() for g in grads.values() if g is not None]).norm()
        for grads in (unclipped, stepped)
    )
    assert before > 10 * max_norm
    assert after <= max_norm * (1 + 1e-5)
    for name, grad in stepped.items():
        if 'bottleneck' in name or 'encoder' in name:
            expected = unclipped[name] * max_norm / before
            assert torch.allclose(grad, expected, rtol=1e-3, atol=1e-9), name


# A Runner


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(images=sum(results))


class Recorder(Hook):
    """The weights after each step, and those that each validation sees."""

    def __init__(self):
        self.stepped, self.validated = [], []

    def after_train_iter(self, runner, *_, **__):
        self.stepped.append(copy.deepcopy(runner.model.state_dict()))

    def before_val_iter(self, runner, *_, **__):
        self.validated.append(copy.deepcopy(runner.model.state_dict()))


def train(kind, tmp_path, options=None, hooks=()):
    """Four steps with a validation after every second one."""
    cfg = config(kind, options or {})
    batch = LIBRARIES[kind].inputs(((64, 64), (64, 64)))
    samples = [
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(batch['inputs'], batch['data_samples'])
    ]
    load = partial(DataLoader, collate_fn=pseudo_collate)
    runner = Runner(
        model=cfg.model,
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,
        default_scope='mmdet' if kind == 'detector' else 'mmseg',
        # MMEngine pauses for two seconds where an epoch ends
        train_dataloader=load(4 * samples, batch_size=2),
        val_dataloader=load(samples[:1], batch_size=1),
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        val_cfg=dict(),
        val_evaluator=Evaluator([Nothing()]),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-2)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4)
        ),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    runner.train()
    return runner


def exponential(step):
    """mmdet's momentum, gamma=4: at the default of 2000 an average of four
    steps is the last one."""
    return (1 - 0.0002) * math.exp(-(1 + step) / 4) + 0.0002


@pytest.mark.parametrize(
    ('ema', 'momentum'),
    [
        (
            dict(ema_type='mmdet.ExpMomentumEMA', momentum=0.0002, gamma=4),
            exponential,
        ),
        (dict(momentum=0.3), lambda step: 0.3),
    ],
    ids=['ExpMomentumEMA', 'ExponentialMovingAverage'],
)
@pytest.mark.parametrize('kind', ['detector', 'upernet'])
def test_the_moving_average_is_validated_and_saved(
    kind, ema, momentum, tmp_path
):
    seen = Recorder()
    hook = dict(type='EMAHook', update_buffers=True, **ema)
    runner = train(kind, tmp_path, IDENTITY, [hook, seen])
    averages = [
        {k: v for k, v in seen.stepped[0].items() if v.is_floating_point()}
    ]
    for step, weights in enumerate(seen.stepped[1:], 1):
        m = momentum(step)
        averages.append(
            {k: (1 - m) * v + m * weights[k] for k, v in averages[-1].items()}
        )
    raw = seen.stepped[-1]
    saved = read_checkpoint(str(tmp_path / 'iter_4.pth'))
    kept = saved['ema_state_dict']
    assert len(seen.validated) == 2
    for key, average in averages[3].items():
        for weights, expected in (
            (seen.validated[0], averages[1][key]),
            (seen.validated[1], average),
            (saved['state_dict'], average),
        ):
            assert torch.allclose(weights[key], expected, atol=1e-6), key
        # MMEngine keeps the trained weights where the averaged ones were.
        assert torch.equal(kept[f'module.{key}'], raw[key]), key
        assert torch.equal(runner.model.state_dict()[key], raw[key]), key
    for key in (ANCHORS, GATE):
        assert (averages[3][key] - raw[key]).abs().max() > 1e-5


def test_a_segmentor_of_sync_batch_norm_trains_without_a_gpu(tmp_path):
    cfg = config('upernet', {}).model
    for part in (cfg.decode_head, cfg.auxiliary_head, cfg.neck.neck):
        assert part.norm_cfg.type == 'SyncBN'
    seen = Recorder()
    runner = train('upernet', tmp_path, hooks=[seen])
    model = runner.model
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    for part in (model.neck.neck, model.decode_head.fpn_bottleneck):
        assert any(isinstance(m, _BatchNorm) for m in part.modules())
    for key in (ANCHORS, 'decode_head.fpn_bottleneck.bn.running_mean'):
        first, *_, last = (weights[key] for weights in seen.stepped)
        assert last.isfinite().all()
        assert not torch.equal(first, last)


# Activation checkpointing


def assert_same_step(plain, checkpointed, kind, monkeypatch):
    """Losses and gradients, and that something was checkpointed at all."""
    data = LIBRARIES[kind].inputs()
    recomputed = []
    run = checkpoint.CheckpointFunction.backward

    def spy(*args):
        recomputed.append(args)
        return run(*args)

    monkeypatch.setattr(
        checkpoint.CheckpointFunction, 'backward', staticmethod(spy)
    )
    expected, grads = backward(plain, data)
    assert not recomputed
    log, again = backward(checkpointed, data)
    assert len(recomputed) >= 4
    assert OWN[kind] < set(log)
    assert set(log) == set(expected)
    for name, value in expected.items():
        assert float(log[name]) == pytest.approx(float(value), 1e-6), name
    for name, grad in grads.items():
        assert torch.allclose(again[name], grad, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize('kind', ['detector', 'deeplab'])
def test_a_backbone_with_cp_leaves_losses_and_gradients(kind, monkeypatch):
    plain = make(kind)
    checkpointed = make(kind, {'backbone.with_cp': True})
    checkpointed.load_state_dict(plain.state_dict())
    assert_same_step(plain, checkpointed, kind, monkeypatch)


def test_checkpointed_layers_of_beit_leave_losses_and_gradients(monkeypatch):
    """mmseg's BEiT has no with_cp, MMEngine's config field does it."""
    plain = make('upernet')
    checkpointed = copy.deepcopy(plain)
    turn_on_activation_checkpointing(
        checkpointed, [f'backbone.layers.{layer}' for layer in '0123']
    )
    assert_same_step(plain, checkpointed, 'upernet', monkeypatch)


def wrap(module, use_reentrant):
    module.forward = partial(
        checkpoint.checkpoint, module.forward, use_reentrant=use_reentrant
    )


@pytest.mark.parametrize(
    ('kind', 'part', 'use_reentrant'),
    [
        ('detector', 'neck', False),
        ('detector', 'roi_head.bbox_head', False),
        ('detector', 'roi_head.bbox_head', True),
        ('upernet', 'decode_head', False),
        # what MMEngine's `activation_checkpointing` field takes
        ('detector', 'neck', True),
        ('upernet', 'decode_head', True),
        ('upernet', 'neck.bottleneck.quantizer', True),
        ('upernet', 'decode_head.encoder', True),
    ],
)
def test_checkpointing_a_part_that_reports_is_refused(
    kind, part, use_reentrant
):
    model = make(kind)
    wrap(attrgetter(part)(model), use_reentrant)
    with pytest.raises(RuntimeError, match='checkpointing must not wrap'):
        backward(model, LIBRARIES[kind].inputs())
