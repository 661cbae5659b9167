"""What is opened around a call is open in its thread and task alone, and hooks
for the length of a call leave other threads' calls as they are."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmaib.contexts import ContextStack
from mmaib.layers import AttentiveBottleneck
from mmaib.layers.capture import capture_attention
from mmaib.layers.map_changes import changed_maps
from mmaib.losses import collect, collecting, report_loss
from mmaib.models.averaging import averaged
from mmaib.sampling import draws
from mmaib.sampling.draws import Draws


def in_another_thread(call, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args).result()


def test_another_thread_draws_nothing_and_reports_nowhere():
    def other():
        report_loss('loss_kl', torch.tensor(5.0))
        with collect() as own:
            report_loss('loss_kl', torch.tensor(7.0))
        return draws.current(), collecting(training=True), own.mean()

    with Draws(attention=4).open(), collect() as aux:
        asked, heard, own = in_another_thread(other)
        report_loss('loss_kl', torch.tensor(3.0))
        assert draws.current().attention == 4
    assert asked == Draws()
    assert not heard
    assert float(own['loss_kl']) == 7
    assert float(aux.mean()['loss_kl']) == 3


def test_another_task_that_waits_its_turn_draws_nothing():
    async def draw(count, turns):
        with Draws(attention=count).open():
            await asyncio.sleep(0)
            turns.append((count, draws.current().attention))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        turns.append((None, draws.current().attention))

    async def both():
        turns = []
        await asyncio.gather(draw(2, turns), draw(3, turns))
        return turns

    turns = asyncio.run(both())
    assert set(turns) == {(2, 2), (3, 3), (None, None)}


def test_a_generator_that_is_let_go_closes_its_own_alone():
    def opens(count):
        with Draws(attention=count).open():
            yield

    first = opens(2)
    next(first)
    with Draws(attention=3).open():
        first.close()
        assert draws.current().attention == 3
    assert draws.current() == Draws()


def test_what_is_compiled_follows_what_is_open():
    torch.compiler.reset()
    layer = AttentiveBottleneck(4).eval()
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    x = torch.rand(2, 4, 6, 6)
    rows = []
    with torch.no_grad():
        for count in (None, 3, 1, None):
            with Draws(attention=count).open():
                rows.append(len(compiled(x)))
        with Draws(attention=3).open():
            rows.append(len(in_another_thread(torch.no_grad()(compiled), x)))
    assert rows == [2, 6, 2, 2, 2]


# Hooks for the length of a call


def meanwhile(module, model, *args):
    """Let another thread run all of the model while this one is about to
    run the module; what it got."""
    found = []

    def interrupt(*_):
        handle.remove()
        found.append(in_another_thread(torch.no_grad()(model), *args))

    handle = module.register_forward_pre_hook(interrupt)
    return found


def build(scope, **cfg):
    init_default_scope(scope)
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(scope) as registry:
        model = registry.build(cfg)
    model.eval()
    return model


@torch.no_grad()
def test_two_threads_attend_a_place_once_each():
    model = build(
        'mmdet',
        type='mmaib.AttendedBackbone',
        backbone=dict(type='ResNet', depth=18, base_channels=4),
        at=['layer2', 'layer4'],
        in_channels=[8, 32],
        bottleneck=dict(modulation=dict(mode='scale')),
    )
    x, y = torch.rand(2, 1, 3, 64, 64)
    expected = model(x), model(y)
    found = meanwhile(model.layer1, model, y)
    got = model(x)
    for mine, alone in zip((got, *found), expected, strict=True):
        assert all(map(torch.equal, mine, alone))


@torch.no_grad()
def test_two_threads_encode_a_latent_once_each():
    head = build(
        'mmseg',
        type='mmaib.WithLatent',
        base='FCNHead',
        in_channels=8,
        channels=6,
        num_classes=3,
        num_convs=1,
    )
    # at the mean an encoder gives what it gets: let it show how often
    head.latents['all'].register_forward_hook(lambda *args: 2 * args[2])
    x, y = torch.rand(2, 1, 8, 5, 5)
    expected = head([x]), head([y])
    found = meanwhile(head.convs, head, [y])
    for mine, alone in zip((head([x]), *found), expected, strict=True):
        assert torch.equal(mine, alone)


@torch.no_grad()
def test_another_threads_images_are_no_draws():
    """One image in three draws here, three images there."""
    inner = nn.Identity()

    class Head(nn.Module):
        def forward(self, levels):
            return [inner(level) for level in levels]

    model = Head()
    here, there = torch.rand(2, 3, 4, 5, 5)
    found = meanwhile(inner, model, [there])
    with averaged(model, 1):
        got = model([here])
    assert torch.equal(got[0], here.mean(0, keepdim=True))
    assert torch.equal(found[0][0], there)


@torch.no_grad()
def test_another_threads_maps_are_neither_captured_nor_changed():
    layer = AttentiveBottleneck(4).eval()
    nn.init.normal_(layer.attention.mean_conv.weight)
    x, y = torch.rand(2, 1, 4, 6, 6)
    expected = layer(y)
    with capture_attention(layer) as maps, changed_maps(layer, 'mirror'):
        theirs = in_another_thread(torch.no_grad()(layer), y)
        assert torch.equal(theirs, expected)
        assert not torch.equal(layer(y), expected)
        layer(x)
    assert len(maps) == 2


def test_things_of_one_value_are_told_apart():
    opened = ContextStack('test')
    first, second = [], []
    with opened.open(first):
        with opened.open(second):
            assert opened.innermost() is second
        assert opened.innermost() is first
    assert opened.innermost() is None
