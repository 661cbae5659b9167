"""A user's own map, gate and encoder, of no class of mmaib's parts, go through
all that mmaib's own do."""

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from support import segmentation as seg
from torch import nn

from mmaib.evaluation import AttentionMetric, ablation_metrics
from mmaib.hooks import BetaWarmupHook
from mmaib.layers import MapDistribution, Modulation, capture_attention
from mmaib.losses import Reporter, collecting, report_loss
from mmaib.models import AIBNeck
from mmaib.sampling import Draws, draw_latents, map_noise
from mmaib.visualization.overlays import picture


@MODELS.register_module()
class OwnMap(BaseModule):
    """Its std is asked for where it is needed alone."""

    def __init__(self, in_channels, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.score = nn.Conv2d(in_channels, 1, 1)
        self.spread = nn.Parameter(torch.tensor(0.1))
        self.asked = 0

    def forward(self, x):
        mean = self.score(x).float().sigmoid()

        def std():
            self.asked += 1
            return self.spread.exp() * torch.full_like(mean, 0.1)

        return MapDistribution(mean, std)


@MODELS.register_module()
class OwnGate(Reporter, Modulation):
    """Lets a share of the features pass, and Gaussian noise in their place."""

    stochastic = True

    def __init__(self, in_channels, beta=0.5, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.out_channels, self.beta = in_channels[0], beta
        self.scales = nn.Parameter(torch.ones(len(in_channels)))
        self.share = 1.0

    def map_inputs(self, levels):
        return [x * scale for x, scale in zip(levels, self.scales)]

    def information(self, x, attention, level=0):
        return attention.float().square() * x.float().square()

    def fade(self, factor):
        self.share = factor

    def forward(self, x, attention, level=0):
        x = x.repeat(len(attention) // len(x), 1, 1, 1)
        if collecting(self.training):
            nats = self.information(x, attention, level).mean()
            report_loss('loss_own_gate', self.beta * nats)
        noise = map_noise(x)
        noise = torch.zeros_like(x) if noise is None else noise
        openness = 1 - self.share * (1 - attention.to(x.dtype))
        return openness * x + (1 - openness) * noise


@MODELS.register_module()
class OwnEncoder(Reporter, BaseModule):
    """A latent whose std is one number a channel."""

    def __init__(
        self, in_channels, latent_channels, trunk, with_mean,
        loss_name='loss_kl', beta=0.1, init_cfg=None,
    ):  # fmt: skip
        super().__init__(init_cfg=init_cfg)
        assert not with_mean
        self.beta, self.loss_name = beta, loss_name
        self.std = nn.Parameter(torch.full((latent_channels, 1, 1), 0.1))

    def forward(self, x, layer=None):
        mean = layer(x)
        z = draw_latents(mean, self.std.expand_as(mean))
        if collecting(self.training):
            kl = mean.square().mean() + self.std.square().sum()
            report_loss(self.loss_name, self.beta * kl)
        return z


@MODELS.register_module()
class OwnQuantizer(BaseModule):
    """Knows maps of one level; the highest score of each becomes 1."""

    def forward(self, scores):
        assert scores.dim() == 4
        return (scores == scores.amax((-2, -1), keepdim=True)).float()


def test_a_quantizer_that_knows_single_levels():
    neck = AIBNeck(
        dict(
            attention=dict(type='OwnMap'),
            quantizer=dict(type='OwnQuantizer'),
            modulation=dict(mode='scale'),
        ),
        in_channels=[4, 4],
    ).eval()
    x = [torch.rand(2, 4, 8, 6) + 1, torch.rand(2, 4, 3, 2) + 1]
    with Draws(attention=3, seed=0).open(), capture_attention(neck) as maps:
        out = neck(x)
    for level in out:
        assert (level != 0).sum((-2, -1)).eq(1).all()
    for seen in maps:
        peak = seen.mean.amax((-2, -1), keepdim=True)
        assert torch.equal(seen.quantized, (seen.mean == peak).float())


def test_a_hook_that_changes_one_level():
    neck = AIBNeck(dict(quantizer=dict()), in_channels=[4, 4]).eval()
    x = [torch.randn(2, 4, 8, 6), torch.randn(2, 4, 3, 2)]
    plain = neck(x)

    def mirror(module, args, maps):
        return maps.changed(lambda m: m.flip(-1)) if args[0] is x[1] else maps

    neck.bottleneck.attention.register_forward_hook(mirror)
    first, second = neck(x)
    assert torch.equal(first, plain[0])
    assert torch.allclose((second / x[1]).flip(-1), plain[1] / x[1], atol=1e-5)


@pytest.fixture
def model():
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    cfg.model.test_draws = 'mean'
    cfg.model.neck.bottleneck = dict(
        attention=dict(type='OwnMap'), modulation=dict(type='OwnGate')
    )
    cfg.model.decode_head.latent = dict(type='OwnEncoder')
    torch.manual_seed(0)
    made = seg.build(cfg).eval()
    nn.init.normal_(made.neck.bottleneck.attention.score.weight, std=0.3)
    return made


def parts(model):
    bottleneck = model.neck.bottleneck
    return (
        bottleneck.attention,
        bottleneck.modulation,
        model.decode_head.encoder,
    )


@pytest.mark.parametrize('draws', ['mean', dict(attention=2, latent=2)])
def test_their_losses_train_them(model, draws):
    """At the mean too, where DDP would wait for the std."""
    model.train_draws = Draws.from_config('train_draws', draws)
    losses = seg.loss(model, seg.inputs())
    assert {'loss_own_gate', 'loss_kl', 'attention_std'} <= {*losses}
    model.parse_losses(losses)[0].backward()
    for part in parts(model):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    own = parts(model)[0].score.weight.grad
    assert own.abs().sum() > 0


def test_the_mean_asks_for_no_std(model):
    seg.predict(model, seg.inputs())
    assert parts(model)[0].asked == 0
    model.test_draws = dict(attention=3, seed=0)
    first, second = (
        seg.predict(model, data)[0].seg_logits.data
        for data in [seg.inputs(((64, 64),))] * 2
    )
    assert parts(model)[0].asked > 0
    assert torch.equal(first, second)


def test_ablations_move_them(model, new_runner):
    runner = new_runner(model, seg.inputs(((64, 64),) * 3))
    found = ablation_metrics(
        model,
        runner.val_loop.dataloader,
        runner.val_loop.evaluator,
        ['mirror', 'flatten', 'shuffle', 'open'],
    )
    (whole,) = runner.val().values()
    assert len(found) == 4
    assert all(abs(value - whole) > 1e-4 for value in found.values())
    parts(model)[1].fade(0.0)
    (without,) = runner.val().values()
    assert found['open/base/answer'] == without


def test_what_is_captured_of_them(model):
    _, gate, _ = parts(model)
    inputs = []
    gate.register_forward_pre_hook(lambda _, args: inputs.append(args))
    with capture_attention(model) as maps:
        seg.predict(model, seg.inputs())
    (seen,) = maps  # one for all levels
    assert len(seen.bits) == len(inputs) == 4
    for found, (x, a, _) in zip(seen.bits, inputs):
        bits = gate.information(x, a).sum(1, keepdim=True)
        torch.testing.assert_close(found, bits / torch.tensor(2.0).log())


def test_the_warm_up_lets_them_in(model):
    class Runner:
        iter, hooks = 1, ()

    Runner.model = model
    hook = BetaWarmupHook(end=4)
    hook.before_train(Runner)
    hook.before_train_iter(Runner, 0)
    _, gate, encoder = parts(model)
    assert gate.share == 0.25
    assert gate.beta == 0.125
    assert encoder.beta == pytest.approx(0.025)
    hub = MessageHub.get_current_instance()
    assert hub.get_scalar('train/beta_factor').current() == 0.25


def test_their_pictures_and_scores(model):
    with capture_attention(model) as maps:
        (sample,) = seg.predict(model, seg.inputs(((64, 64),)))
    from mmengine.visualization import Visualizer

    image = np.zeros((64, 64, 3), np.uint8)
    drawn = picture(Visualizer(), maps, image, sample)
    assert drawn.shape[1] > image.shape[1]
    scores = AttentionMetric().scores(maps, 0, sample.metainfo)
    assert scores['bits_per_image'] > 0
    assert scores['contrast'] > 0
