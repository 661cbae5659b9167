from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmaib.hooks import FiniteCheckHook

RUNNER = SimpleNamespace(iter=6)
NAN = float('nan')


def batch(*images):
    samples = [SimpleNamespace(img_path=f'{i}.jpg') for i in range(2)]
    return dict(inputs=list(images), data_samples=samples)


def test_images_are_named_before_the_step():
    hook = FiniteCheckHook()
    whole = torch.ones(3, 4, 4)
    broken = whole.index_fill(1, torch.tensor([2]), NAN)
    hook.before_train_iter(RUNNER, 0, batch(whole.byte(), whole))
    with pytest.raises(
        FloatingPointError, match=r'12 of 48 .*: 1\.jpg \(iteration 7, rank 0'
    ):
        hook.before_train_iter(RUNNER, 0, batch(whole, broken))
    # a batch that was stacked already, and base libraries with batches of
    # their own
    with pytest.raises(FloatingPointError, match=r'0\.jpg'):
        hook.before_train_iter(RUNNER, 0, batch(*torch.stack([broken, whole])))
    with pytest.raises(FloatingPointError, match=r'pipeline: \[\]'):
        hook.before_train_iter(RUNNER, 0, dict(inputs=[broken]))
    branches = {key: dict(student=batch(broken)[key]) for key in batch()}
    with pytest.raises(FloatingPointError, match=r': 0\.jpg'):
        hook.before_train_iter(RUNNER, 0, branches)
    hook.before_train_iter(RUNNER, 0, [broken])
    hook.before_train_iter(RUNNER, 0, None)


@pytest.mark.parametrize('value', [NAN, float('inf')])
def test_losses_and_images_are_named_after_the_step(value):
    hook = FiniteCheckHook()
    losses = dict(loss=torch.tensor(1.0), acc=torch.tensor(3), lr=0.1)
    hook.after_train_iter(RUNNER, 0, batch(), losses)
    hook.after_train_iter(RUNNER, 0, batch(), None)
    losses.update(note='text', none=None, parts=[1], map=torch.ones(2))
    hook.after_train_iter(RUNNER, 0, None, losses)
    losses['loss_kl'] = torch.tensor(value)
    for other in (None, [1], (1,)):
        with pytest.raises(FloatingPointError, match=r'loss_kl.*images \[\]'):
            hook.after_train_iter(RUNNER, 0, other, losses)
    with pytest.raises(FloatingPointError, match=r"loss_kl.*0\.jpg', '1\.jpg"):
        hook.after_train_iter(RUNNER, 0, batch(), losses)


class Waits(TorchDispatchMode):
    """Counts the reads of a tensor's value, for which a GPU is waited."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_gpu_is_waited_for_once_a_step():
    hook = FiniteCheckHook()
    losses = {f'loss_{i}': torch.rand(()) for i in range(20)}
    with Waits() as waits:
        hook.after_train_iter(RUNNER, 0, batch(), losses)
    assert waits.count == 1
    with Waits() as waits:
        hook.before_train_iter(RUNNER, 0, batch(*torch.rand(9, 3, 4, 4)))
    assert waits.count == 1


def test_losses_of_several_types():
    hook = FiniteCheckHook()
    losses = dict(
        loss=torch.tensor(2.0),
        loss_half=torch.tensor(1.0, dtype=torch.float16),
        loss_row=torch.ones(1),
        lr=0.1,
    )
    hook.after_train_iter(RUNNER, 0, None, losses)
    losses.update(lr=NAN, loss_row=torch.full((1,), NAN))
    with pytest.raises(
        FloatingPointError, match=r"'loss_row': nan.*'lr': nan"
    ):
        hook.after_train_iter(RUNNER, 0, None, losses)


def test_broken_weights_are_not_saved():
    hook = FiniteCheckHook()
    weights = dict(a=torch.ones(2), n=torch.tensor(3), _extra_state={})
    weights['attn_mask'] = torch.tensor([0.0, -float('inf')])
    hook.before_save_checkpoint(RUNNER, dict(state_dict=weights))
    weights['neck.gate'] = torch.tensor([NAN])
    with pytest.raises(FloatingPointError, match=r'1 weights.*neck\.gate'):
        hook.before_save_checkpoint(RUNNER, dict(state_dict=weights))


@pytest.mark.parametrize('value', [NAN, float('inf'), -float('inf')])
@pytest.mark.parametrize('name', ['0.weight', '0.bias', '1.running_var'])
def test_infinite_weights_are_not_saved(name, value):
    """A frozen weight, one that learns, a statistic; a mask and a range that
    nothing was seen of may be infinite, and what is added later."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Identity())
    model[0].weight.requires_grad_(False)
    model[2].register_buffer('mask', torch.tensor([0.0, -float('inf')]))
    model[2].register_buffer('lowest', torch.tensor(float('inf')))
    model[2].eight = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), False)
    model[2].large = nn.Parameter(torch.tensor(1e300, dtype=torch.double))
    hook, runner = FiniteCheckHook(), SimpleNamespace(model=model, iter=6)
    hook.before_train(runner)
    model[2].register_buffer('later', torch.tensor(float('inf')))
    hook.before_save_checkpoint(runner, dict(state_dict=model.state_dict()))
    model.state_dict()[name].view(-1)[1] = value
    with pytest.raises(FloatingPointError, match=rf"1 weights.*\['{name}'\]"):
        hook.before_save_checkpoint(
            runner, dict(state_dict=model.state_dict())
        )


def test_what_learns_is_never_meant_to_be_infinite():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.bias, float('inf'))
    hook, runner = FiniteCheckHook(), SimpleNamespace(model=model, iter=6)
    hook.before_train(runner)
    with pytest.raises(FloatingPointError, match=r"\['bias'\]"):
        hook.before_save_checkpoint(
            runner, dict(state_dict=model.state_dict())
        )
