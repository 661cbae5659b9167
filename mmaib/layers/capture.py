"""Look at attention maps while a model runs, without touching the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from .attentive_bottleneck import AttentiveBottleneck


@dataclass
class CapturedMap:
    """The maps of one bottleneck on one level.

    Attributes:
        name: of the bottleneck in the model.
        level: how often the bottleneck had run before, in this capture.
        mean: mu_a, ``(N, 1, H, W)``.
        quantized: a_q, of the first draw if there are several; None without
            a quantiser.
    """

    name: str
    level: int
    mean: Tensor
    quantized: Tensor | None = None


@contextmanager
def capture_attention(model: nn.Module) -> Iterator[list[CapturedMap]]:
    """Record the maps of every :class:`AttentiveBottleneck` of a model.

    Example:
        >>> model = AttentiveBottleneck(in_channels=256)
        >>> with capture_attention(model) as maps:
        ...     out = model(torch.rand(2, 256, 32, 32))
        >>> maps[0].mean.shape
        torch.Size([2, 1, 32, 32])
    """
    captured: list[CapturedMap] = []

    def watch(name: str, bottleneck: AttentiveBottleneck) -> None:
        own: list[CapturedMap] = []

        def on_attention(_: nn.Module, __: tuple, out: tuple) -> None:
            own.append(CapturedMap(name, len(own), out[0].detach()))
            captured.append(own[-1])

        def on_quantizer(_: nn.Module, __: tuple, out: Tensor) -> None:
            batch = own[-1].mean.size(0)
            own[-1].quantized = out.detach()[:batch]

        attention = bottleneck.attention
        handles.callback(attention.register_forward_hook(on_attention).remove)
        if bottleneck.quantizer is not None:
            quantizer = bottleneck.quantizer
            handles.callback(
                quantizer.register_forward_hook(on_quantizer).remove
            )

    with ExitStack() as handles:
        for name, module in model.named_modules():
            if isinstance(module, AttentiveBottleneck):
                watch(name, module)
        yield captured
