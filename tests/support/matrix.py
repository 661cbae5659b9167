"""What works in which base model: the rows of docs/any_model.md."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.cli import wrap
from mmaib.layers import InformationGate
from mmaib.losses import Reporter
from mmaib.sampling.draws import Draws

from . import base_models, loss, predict
from .two_ranks import ADAM, on_two_ranks, two_steps

YES = 'yes'
AS_THE_BASE = "yes, with the base model's `find_unused_parameters`"
COLUMNS = (
    'attention',
    'loss',
    'predict',
    'keys',
    'base model to the bit',
    'latent',
    'draws',
    'DDP, 2 ranks',
)


def is_ours(model: Any, key: str) -> bool:
    """Whether a key is of one of mmaib's layers inside the model."""
    name = key
    while '.' in name:
        name = name.rpartition('.')[0]
        if isinstance(model.get_submodule(name), Reporter):
            return True
    return False


def row(name: str, folder: Path) -> dict[str, str]:
    """What one of :data:`base_models.BASE_MODELS` does with an information
    gate that ``mmaib wrap`` put into it.

    Args:
        name: of the base model.
        folder: an empty one, for configs.

    Returns:
        for each of ``COLUMNS`` but the last, :func:`ddp`'s, ``'yes'``, or
        what it is or is not; of ``attention`` the place where it stands.

    Raises:
        AssertionError: if something works that must not, or the reverse.
    """
    cfg = config_in(folder, name)
    plain = trained(base_models.build(cfg))
    data = base_models.inputs(cfg)
    ours = wrapped(folder, 'gate')
    found = {'attention': place(ours)}

    state = copy.deepcopy(plain.state_dict())
    result = ours.load_state_dict(state, strict=False)
    theirs = [k for k in result.missing_keys if not is_ours(ours, k)]
    assert result.missing_keys
    assert not theirs, theirs
    assert not result.unexpected_keys, result.unexpected_keys
    found['keys'] = YES

    gates = [m for m in ours.modules() if isinstance(m, InformationGate)]
    for gate in gates:
        for own in gate.statistics:
            own.mean.normal_()
    assert answers(ours, data, 1.0), 'no answer to compare'
    assert not same(answers(ours, data, 1.0), answers(plain, data))
    assert same(answers(ours, data, 0.0), answers(plain, data))
    first_losses = losses(plain, data)
    drawn, ours.train_draws = ours.train_draws, Draws()
    mine = losses(ours, data)
    ours.train_draws = drawn
    if 'loss' in first_losses:  # mmpretrain's; MMEngine's of the sum
        first_losses['loss_cls'] = first_losses.pop('loss')
    assert {*first_losses} < {*mine}
    assert all(same(mine[k], v) for k, v in first_losses.items())
    assert same(outputs(ours, data), outputs(plain, data))
    found['base model to the bit'] = YES

    unused = without_gradient(plain, data)
    now = {k.replace('neck.neck.', 'neck.') for k in without_gradient(ours,
           data)}  # fmt: skip
    assert now <= unused, now - unused
    set_strength(ours, 1.0)
    before = {k: v.clone() for k, v in ours.named_parameters()}
    wrapper = build_optim_wrapper(ours, ADAM)
    for _ in range(2):
        ours.train()
        log = ours.train_step(copy.deepcopy(data), wrapper)
        assert all(torch.isfinite(v).all() for v in log.values()), log
    still = [
        key
        for key, value in ours.named_parameters()
        if is_ours(ours, key) and torch.equal(value, before[key])
    ]
    assert not still, still
    found['loss'] = YES
    assert answers(ours, data)
    found['predict'] = YES

    found['latent'] = latent(folder, plain, data)
    found['draws'] = draws(ours, data)
    return {column: found[column] for column in COLUMNS[:-1]}


def config_in(folder: Path, name: str) -> Config:
    """A base config, also written as ``original.py`` for ``mmaib wrap``."""
    cfg = base_models.config(name)
    (folder / 'original.py').write_text(cfg.pretty_text)
    return cfg


def wrapped(folder: Path, attention: str, **options: Any) -> Any:
    """The model of the config that `wrap` writes over the folder's."""
    return base_models.build(written(folder, attention, **options))


def written(folder: Path, attention: str, **options: Any) -> Config:
    """The config that `wrap` writes over the folder's."""
    out = folder / f'{"_".join([attention, *options])}.py'
    base = Config.fromfile(folder / 'original.py')
    # others give their size; a smaller image has levels of one position,
    # which a GroupNorm of one channel a group refuses
    size = (128, 128) if base.default_scope == 'mmdet' else None
    wrap.wrap(
        str(folder / 'original.py'), out, attention, size=size, **options
    )
    return Config.fromfile(out)


def ddp(names: Iterable[str], folder: Path) -> dict[str, str]:
    """The last of ``COLUMNS``, ``'yes'`` or the reason: whether base models
    with a gate train on two ranks, with ``find_unused_parameters`` where their
    own config has it alone. Two processes for all of them.

    Args:
        names: of the base models.
        folder: an empty one, for configs.
    """
    configs = {}
    for number, name in enumerate(names):
        own = folder / str(number)
        own.mkdir()
        config_in(own, name)
        configs[name] = written(own, 'gate')
    first, second = on_two_ranks(partial(_steps, configs=configs), folder)
    return {
        name: second[name] if first[name] == YES else first[name]
        for name in configs
    }


def quiet() -> None:
    """No warnings, and no line a parameter at each initialisation."""
    warnings.simplefilter('ignore')
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)


def _steps(rank: int, configs: dict[str, Config]) -> dict[str, str]:
    """What each base model does on this rank."""
    quiet()
    found = {}
    for name, cfg in configs.items():
        # the first two of four images, or the others
        data = base_models.inputs(cfg, 4)
        own = {key: x[2 * rank : 2 * rank + 2] for key, x in data.items()}
        model = base_models.build(cfg)
        set_strength(model, 1.0)
        unused = base_models.has_unused_parameters(name)
        try:
            two_steps(
                model,
                rank,
                partial(copy.deepcopy, own),
                find_unused_parameters=unused,
            )
            found[name] = AS_THE_BASE if unused else YES
        except (AssertionError, RuntimeError) as error:
            found[name] = ' '.join(str(error).split())[:200]
    return found


def trained(model: Any) -> Any:
    """Weights and statistics that no initialisation gives."""
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model


def place(model: Any) -> str:
    """Where attention stands in a model."""
    at = getattr(model.backbone, 'at', None)
    if at:
        return f'in the backbone, at {at[0]}'
    neck = model.neck
    one = neck.map == 'shared' or neck.num_levels == 1
    map_ = 'one map' if one else 'a map a level'
    if neck.neck is None:
        return f'after the backbone, {map_}'
    parts = neck.neck if isinstance(neck.neck, torch.nn.Sequential) else [
        neck.neck
    ]  # fmt: skip
    names = ' and '.join(type(part).__name__ for part in parts)
    return f'{neck.where} {names}, {map_}'


def set_strength(model: Any, value: float) -> None:
    """Of the gates, as far as they have faded in."""
    for module in model.modules():
        if hasattr(module, 'fade'):
            module.fade(value)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of predictions or losses."""
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, dict):
        for name in sorted(value):
            yield from tensors(value[name])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif hasattr(value, 'to_dict'):
        yield from tensors(value.to_dict())
    elif hasattr(value, 'all_items'):
        yield from tensors(dict(value.all_items()))


def answers(
    model: Any, data: dict, strength: float | None = None
) -> list[Tensor]:
    """What the model predicts, inputs and ground truth left out."""
    if strength is not None:
        set_strength(model, strength)
    torch.manual_seed(1)
    found = []
    for sample in predict(model, copy.deepcopy(data)):
        found += [
            tensor
            for key in sorted(sample.keys())
            if key.startswith(('pred', 'seg_logits'))
            for tensor in tensors(getattr(sample, key))
        ]
    return found if sum(x.numel() for x in found) else []


def losses(model: Any, data: dict) -> dict[str, Any]:
    torch.manual_seed(1)
    return loss(model, copy.deepcopy(data))


def outputs(model: Any, data: dict) -> Any:
    """What a model in training gives for its outputs alone, as counters of
    operations and tracers ask; nothing of heads that want more than
    features, whose base library refuses it."""
    torch.manual_seed(1)
    batch = model.data_preprocessor(copy.deepcopy(data), training=True)
    model.train()
    try:
        return model(**batch, mode='tensor')
    except TypeError as error:
        if 'Head.forward()' not in str(error):
            raise
        return None


def same(first: Any, second: Any) -> bool:
    """Whether they are equal, to the bit."""
    pairs = list(tensors(first)), list(tensors(second))
    return len(pairs[0]) == len(pairs[1]) and all(
        torch.equal(a, b) for a, b in zip(*pairs)
    )


def without_gradient(model: Any, data: dict) -> set[str]:
    """Parameters that a step leaves without one: unused to DDP."""
    model.zero_grad()
    model.parse_losses(losses(model, data))[0].backward()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    }


def latent(folder: Path, plain: Any, data: dict) -> str:
    """Whether the head has a stochastic form, or why not."""
    try:
        model = wrapped(folder, 'aib', latent=True)
    except wrap.WrapError:
        return 'no such head'
    model.load_state_dict(copy.deepcopy(plain.state_dict()), strict=False)
    # at the mean of the latent, and of a map that is not yet there
    assert same(answers(model, data), answers(plain, data))
    found = losses(model, data)
    assert any('loss_kl' in key for key in found), found
    unused = without_gradient(model, data)
    assert not [k for k in unused if is_ours(model, k)], unused
    return YES


def draws(model: Any, data: dict) -> str:
    """Whether results are averaged over drawn maps, or why not."""
    try:
        model.test_draws = dict(attention=3, seed=0)
    except ValueError as error:
        reasons = {
            'set predictors': 'no: predicts a set',
            'stands inside the backbone': 'one map',
            'has no one output': 'no: nothing to average',
        }
        (reason,) = (v for k, v in reasons.items() if k in str(error))
        return reason
    several = answers(model, data)
    assert several
    assert same(answers(model, data), several), 'not repeatable'
    model.test_draws = 'mean'
    assert not same(answers(model, data), several)
    return YES
