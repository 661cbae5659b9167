"""Our sample models on a GPU, `make test-gpu`.

`MMAIB_TEST_DEVICE=cpu` runs the same tests on a CPU, to test the tests.
"""

import copy
import os
from collections import defaultdict
from functools import partial

import pytest
import torch
from mmcv.ops import get_compiling_cuda_version
from support import classification as cls
from support import detection as det
from support import loss, predict
from support import segmentation as seg

from mmaib.cost import peak_mib
from mmaib.layers import (
    AttentiveBottleneck,
    anchor_quantizer,
    gaussian_encoder,
    variational_attention,
)
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling import draws

pytestmark = pytest.mark.gpu

KINDS = ('detector', 'segmentor', 'classifier')
FORMULAS = [
    (anchor_quantizer, 'nearest_anchor'),
    (draws, 'draw_gaussian'),
    (gaussian_encoder, 'gaussian_kl'),
    (gaussian_encoder, 'softplus_std'),
    (variational_attention, 'softplus_std'),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

every_kind = pytest.mark.parametrize('kind', KINDS)
every_dtype = pytest.mark.parametrize(
    'dtype', DTYPES, ids=lambda dtype: str(dtype).removeprefix('torch.')
)


@pytest.fixture
def device():
    return torch.device(os.environ.get('MMAIB_TEST_DEVICE', 'cuda'))


@pytest.fixture
def exact():
    """No TF32 in convolutions, which rounds to 11 bits; products of matrices
    have none by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def formulas(monkeypatch):
    """Dtype and kind of device of what every formula gave."""
    seen = defaultdict(set)

    def spy(layer, name):
        formula = getattr(layer, name)

        def wrapper(*args, **kwargs):
            out = formula(*args, **kwargs)
            first = out[0] if isinstance(out, tuple) else out
            seen[name].add((first.dtype, first.device.type))
            return out

        monkeypatch.setattr(layer, name, wrapper)

    for layer, name in FORMULAS:
        spy(layer, name)
    return seen


def config(kind, name='aib-qt_'):
    """A shrunken config; ``name=''`` is the base library's own model."""
    if kind == 'detector':
        return det.shrink(det.aib_config() if name else det.plain_config())
    if kind == 'segmentor':
        return seg.shrink(seg.config(seg.UPERNET / f'{name}{seg.BEIT}'))
    return cls.shrink(cls.config('wrn28-10-aib-qt' if name else 'wrn28-10'))


def build(kind, cfg, device):
    """The model, and a batch for it."""
    ops = get_compiling_cuda_version() != 'not available'
    if kind == 'detector' and device.type == 'cuda' and not ops:
        pytest.skip('mmcv was compiled without CUDA: no NMS for detectors')
    library = {'detector': det, 'segmentor': seg, 'classifier': cls}[kind]
    return library.build(cfg).to(device), library.inputs()


def monte_carlo(count):
    return dict(attention=count, latent=count, seed=0)


def results(samples):
    """What was predicted, as one list of tensors."""
    found = []
    for sample in samples:
        if 'pred_instances' in sample:
            instances = sample.pred_instances
            assert len(instances) > 0
            found += [instances.bboxes, instances.scores]
        elif 'seg_logits' in sample:
            found.append(sample.seg_logits.data)
        else:
            found.append(sample.pred_score)
    return found


@every_kind
@every_dtype
def test_a_step_and_a_prediction(kind, dtype, device, formulas):
    cfg = config(kind)
    if kind == 'detector' and dtype != torch.float32:
        if device.type == 'cpu':
            pytest.skip("mmcv's NMS takes no half precision on a CPU")
        if dtype == torch.bfloat16:  # mmcv's has none
            extractor = cfg.model.roi_head.bbox_roi_extractor
            extractor.roi_layer.use_torchvision = True
    cfg.model.test_draws = monte_carlo(2)
    model, data = build(kind, cfg, device)
    dtypes = set()
    model.neck.bottleneck.attention.std_conv.register_forward_hook(
        lambda layer, args, out: dtypes.add(out.dtype)
    )
    autocast = torch.autocast(
        device.type, dtype, enabled=dtype != torch.float32
    )
    with autocast:
        losses = loss(model, copy.deepcopy(data))
    total, log = model.parse_losses(losses)
    total.backward()
    assert total.device.type == device.type
    for name, value in log.items():
        assert torch.as_tensor(value).isfinite().all(), name
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    with autocast:
        samples = predict(model, data)
    for value in results(samples):
        assert value.device.type == device.type
        assert value.isfinite().all()
    assert dtypes == {dtype}  # autocast was on
    assert set(formulas) == {name for _, name in FORMULAS}
    assert set().union(*formulas.values()) == {(torch.float32, device.type)}


@every_kind
def test_drawn_predictions_repeat_and_differ_by_seed(kind, device):
    cfg = config(kind)
    cfg.model.test_draws = monte_carlo(3)
    model, data = build(kind, cfg, device)
    std = model.neck.bottleneck.attention.std_conv
    torch.nn.init.constant_(std.bias, 4.0)

    def once():
        torch.rand(3, device=device)  # whatever the global generator does
        return results(predict(model, copy.deepcopy(data)))

    first = once()
    assert all(map(torch.equal, first, once()))
    model.test_draws = dict(monte_carlo(3), seed=1)
    assert not all(map(torch.equal, first, once()))


def outputs(kind, model, data):
    """Features, and logits of the mean mode."""
    images = model.data_preprocessor(copy.deepcopy(data), False)['inputs']
    with torch.no_grad():
        x = model.extract_feat(images)
        if kind == 'detector':
            boxes = [[0, 4.0, 4, 60, 50], [1, 0, 0, 30, 90]]
            rois = torch.tensor(boxes, device=images.device)
            found = model.roi_head._bbox_forward(x, rois)
            return [*x, found['cls_score'], found['bbox_pred']]
        if kind == 'segmentor':
            metas = [dict(img_shape=images.shape[2:])] * len(images)
            return [*x, model.encode_decode(images, metas)]
        return [*x, model.head(x)]


@every_kind
def test_the_mean_mode_is_that_of_the_cpu(kind, device, exact):
    cfg = config(kind)
    cfg.model.test_draws = 'mean'
    model, data = build(kind, cfg, device)
    model.eval()
    got = outputs(kind, model, data)
    expected = outputs(kind, model.cpu(), data)
    for ours, reference in zip(got, expected, strict=True):
        error = (ours.cpu() - reference) / reference.std()
        assert error.square().mean().sqrt() < 1e-4  # TF32: 1e-3


def parts(name):
    """A module of ours, and features for it."""
    options = dict(quantizer=dict(num_anchors=20))
    x = [torch.randn(2, 16, side, side) for side in (16, 8)]
    if name == 'bottleneck':
        return AttentiveBottleneck(16, **options), x[0]
    return AIBNeck(options, in_channels=16), x


assert_close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


def flat(out):
    return torch.cat([level.flatten() for level in out])


def step(module, x):
    """Output, losses and gradients of a step."""
    module.train().zero_grad()
    with collect() as aux:
        out = flat(module(x))
    losses = aux.mean()
    (
        out.square().mean() + losses['loss_vq'] + losses['loss_commit']
    ).backward()
    grads = [p.grad.flatten() for p in module.parameters()]
    return torch.cat([out.detach(), *grads])


@pytest.mark.parametrize('name', ['bottleneck', 'neck'])
def test_gradients_are_those_of_the_cpu(name, device, exact):
    module, x = parts(name)
    expected = step(module, x)
    moved = copy.deepcopy(module).to(device)
    x = x.to(device) if name == 'bottleneck' else [i.to(device) for i in x]
    assert_close(step(moved, x).cpu(), expected)


@pytest.mark.parametrize('name', ['bottleneck', 'neck'])
def test_compiled(name, device, exact):
    torch.compiler.reset()
    module, x = parts(name)
    module = module.to(device)
    x = x.to(device) if name == 'bottleneck' else [i.to(device) for i in x]
    compiled = torch.compile(module)
    assert_close(step(compiled, x), step(module, x))
    with torch.no_grad():
        assert_close(flat(compiled.eval()(x)), flat(module.eval()(x)))


def test_peak_memory_of_a_tensor(device):
    peak = peak_mib(lambda: torch.ones(2**24, device=device), device)
    assert float(peak) == pytest.approx(64, abs=2)


@every_kind
def test_peak_memory(kind, device, capsys):
    peaks = []
    for name in ('', 'aib-qt_'):
        model, data = build(kind, config(kind, name), device)

        def train(model=model, data=data):
            model.parse_losses(loss(model, copy.deepcopy(data)))[0].backward()
            model.zero_grad(set_to_none=True)

        train()
        peaks.append(peak_mib(train, device))
    with capsys.disabled():
        print(f'\n{kind}, peak MiB of a step, base model : ours', *peaks)
    assert min(map(float, peaks)) > 0
