"""What a model costs: parameters, multiply-adds, operators, time, memory."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def gmacs(call: Callable[[], Any]) -> float:
    """Multiply-adds of convolutions and matrix products, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e9


class _Operators(TorchDispatchMode):
    # what copies nothing, and is no view by its name
    free = (
        'aten._unsafe_view',
        'aten.detach',
        'aten.empty',
        'aten.new_empty',
        'prim.',
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += not (func.is_view or str(func).startswith(self.free))
        return func(*args, **(kwargs or {}))


def operators(call: Callable[[], Any]) -> int:
    """Operators that write a tensor; each starts a kernel on a GPU, or a
    few."""
    with _Operators() as counter:
        call()
    return counter.count


def millions(model: nn.Module) -> float:
    """Parameters, in 1e6."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def interleaved(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device | str = 'cpu',
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the first rounds warm up, one
    on a CPU, three on a GPU. On a CPU they are this process's own, of all
    its threads, so that what else runs on the machine counts little."""
    on_gpu = torch.device(device).type == 'cuda'
    clock = time.perf_counter if on_gpu else time.process_time
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(-2 if on_gpu else 0, rounds + 1):
        for name, call in variants.items():
            if on_gpu:
                torch.cuda.synchronize(device)
            begun = clock()
            call()
            if on_gpu:  # a call returns before its kernels do
                torch.cuda.synchronize(device)
            if round_ > 0:
                times[name].append(clock() - begun)
        print(f'  round {round_} of {rounds}', flush=True)
    return times


def peak_mib(
    call: Callable[[], Any], device: torch.device | str = 'cpu'
) -> str:
    """Growth of the memory at the peak of one call: what tensors take on a
    GPU, what this process takes of the machine's on a CPU (Linux)."""
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        call()
        peak = torch.cuda.max_memory_allocated(device)
        return f'{(peak - allocated) / 2**20:.0f}'
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory hides the growth
        Path('/proc/self/clear_refs').write_text('5')  # resets the peak
        before = _status_kib('VmRSS')
        call()
        return f'{(_status_kib("VmHWM") - before) / 1024:.0f}'
    except (OSError, AttributeError):
        return 'not measured'


def _status_kib(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f'no {field} in /proc/self/status')
