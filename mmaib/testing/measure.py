"""Time and arithmetic of calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def interleaved(
    variants: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round warms up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, call in variants.items():
            begun = time.perf_counter()
            call()
            if round_:
                times[name].append(time.perf_counter() - begun)
        print(f'  round {round_} of {rounds}', flush=True)
    return times


def gmacs(call: Callable[[], Any]) -> float:
    """Multiply-adds of convolutions and matrix products, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e9


def millions(model: nn.Module) -> float:
    """Parameters, in 1e6."""
    return sum(p.numel() for p in model.parameters()) / 1e6
