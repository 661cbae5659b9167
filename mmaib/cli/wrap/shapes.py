"""A model without values: built without initialisation, and run on tensors
that have shapes alone, which takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmaib.cost import gmacs, millions
from mmaib.losses import collect

RANDOM = {
    torch.ops.aten.uniform_.default,
    torch.ops.aten.normal_.default,
    torch.ops.aten.erfinv_.default,
}


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: in 1e6.
        macs: multiply-adds of backbone and neck, in 1e9.
        uncounted: operators of mmcv that ran and are not in them.
    """

    parameters: float
    macs: float
    uncounted: frozenset[str] = frozenset()


class Uninitialised(TorchDispatchMode):
    """Leaves the parameters of a model that is built inside the ``with`` as
    they are, which takes time that grows with them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func in RANDOM else func(*args, **(kwargs or {}))


@torch.no_grad()
def cost(model: Any, images: Tensor) -> Cost:
    """Pass images through backbone and neck: without values, or with them
    if an operator is in need of them."""
    run = partial(model.extract_feat, images)
    try:
        with valueless() as skipped:
            macs = gmacs(run)
        return Cost(millions(model), macs, frozenset(skipped))
    except Exception:
        return Cost(millions(model), gmacs(run))


def refusal_in_training(model: Any, images: Tensor) -> str | None:
    """Why a model with attention stops in training alone: some backbones
    give other features there."""
    model.train()
    try:
        with valueless(), collect():
            model.extract_feat(images.repeat(2, 1, 1, 1))
    except Exception as error:
        if 'in_channels' in str(error):
            return str(error)
    return None


@contextmanager
def valueless() -> Iterator[set[str]]:
    """Tensors have shapes alone inside the ``with``; the names of those of
    mmcv's operators that ran. They write into a tensor that their caller has
    made: nothing is left to do."""
    ran: set[str] = set()
    with ExitStack() as stack:
        operators = import_module('mmcv._ext')
        for name in vars(operators):
            if '_forward' in name or '_backward' in name:
                skip = _skip(name, ran)
                stack.enter_context(patch.object(operators, name, skip))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield ran


def _skip(name: str, ran: set[str]) -> Callable[..., None]:
    return lambda *_, **__: ran.add(name.removesuffix('_forward'))
