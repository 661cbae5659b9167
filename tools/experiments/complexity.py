"""Table 3 of [AIB]: multiply-adds and time of its classifiers, the paper's
beside mmaib's.

    python tools/experiments/complexity.py --out work_dirs/complexity.md

The paper's "FLOPs" are multiply-adds. Ours are those of convolutions and
matrix products of one image at the mean, and with L_a = L_z = 4. Where they
are not the paper's, a row `as counted` has a model whose count they are, and
the layers it differs in: inferred, the paper does not say. Times are of
one image on this machine, all variants interleaved; the paper's are of a
Titan Xp.

    python tools/experiments/complexity.py --layers CONFIG [--size 224]

writes Table 1 or 4 for a model: output shape, parameters and multiply-adds of
each part.

    python tools/experiments/complexity.py --maps

writes what the maps of [RECT] take at its two networks' features, beside what
it says of them.
"""

import argparse
import platform
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmaib.evaluation.cost import gmacs, interleaved, millions
from mmaib.layers import LatentEncoder

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSIFICATION = CONFIGS / 'classification'

DRAWS = dict(attention=4, latent=4, seed=0)


class Counted(NamedTuple):
    """A model whose multiply-adds are the paper's, and how it differs.

    Attributes:
        options: for the config.
        draws: L_a.
        layers: that it differs in.
    """

    options: dict[str, Any]
    draws: int
    layers: str


class Row(NamedTuple):
    """A row of the table; the paper's figures are those of its Table 3."""

    model: str
    size: int
    classes: int
    config: str
    gflops: float
    milliseconds: float
    counted: Counted | None = None


WRN28 = Counted(
    {'model.neck.neck.strides': (1,)},
    4,
    'block 3 of the encoder at stride 1, on 16x16, and once for each of '
    'L_a = 4 maps: 4 x 7.13 G instead of 1.78 G',
)
WRN50 = Counted(
    {'model.neck.neck.stride': 1},
    4,
    'block 4 of the encoder at stride 1, on 14x14, and once for each of '
    'L_a = 4 maps: 4 x 8.22 G instead of 2.21 G',
)
VGG = Counted(
    {
        'model.neck.bottleneck.attention.mean_trunk': dict(
            type='mmaib.VGGBlocks',
            in_channels=512,
            channels=(512,),
            depths=(3,),
            pools=(False,),
        )
    },
    1,
    'three more 3x3 convolutions of 512 channels on 14x14, 1.39 G, as if the '
    "map's mean had a block 5 of its own, like WRN's has a block 4",
)


def rows() -> list[Row]:
    cifar, cub = '1xb128-200e_{}.py', '1xb16-200e_cub-224x224.py'
    table = []
    for size, classes, rest, wrn, paper, counts in (
        (32, 10, cifar.format('cifar10'), 'wrn28-10',
         ((3.79, 3.43), (3.79, 3.68), (39.14, 8.53), (39.14, 8.55)),
         (None, WRN28)),
        (32, 100, cifar.format('cifar100'), 'wrn28-10',
         ((3.79, 3.51), (3.79, 3.70), (39.20, 8.60), (39.20, 8.84)),
         (None, WRN28)),
        (224, 200, cub, 'wrn50-2',
         ((16.75, 3.58), (16.75, 3.81), (50.97, 10.47), (50.97, 10.66)),
         (VGG, WRN50)),
    ):  # fmt: skip
        for i, (folder, suffix) in enumerate(
            (f, s) for f in ('vgg16', wrn) for s in ('aib', 'aib-qt')
        ):
            name = f'{folder}-{suffix}'
            config = f'{folder}/{name}_{rest}'
            count = counts[i // 2]
            table.append(Row(name, size, classes, config, *paper[i], count))
    return table


def load(config: str | Path, options: dict | None = None) -> Any:
    """A classifier in evaluation mode, with the weights of its layers'
    constructors."""
    cfg = Config.fromfile(CLASSIFICATION / config)
    cfg.merge_from_dict(options or {})
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model).eval()


@torch.no_grad()
def evaluate(model: Any, image: Tensor, draws: dict | None = None) -> None:
    model.test_draws = draws or 'mean'
    model.predict(image)


def difference(ours: float, paper: float) -> str:
    return f'{100 * (ours - paper) / paper:+.1f} %'


def table(rounds: int) -> list[str]:
    lines = [
        '| model | input | classes | M parameters | G multiply-adds '
        '| paper | difference | L_a = L_z = 4 | ms | ms, L_a = L_z = 4 '
        '| paper, ms |',
        '|' + '---|' * 11,
    ]
    notes = {}
    of_size: dict[tuple, list[Row]] = {}
    for row in rows():
        of_size.setdefault((row.size, row.classes), []).append(row)
    for (size, classes), group in of_size.items():
        image = torch.rand(1, 3, size, size)
        models = {row.model: load(row.config) for row in group}
        calls: dict[str, Callable[[], None]] = {}
        for name, model in models.items():
            calls[name] = partial(evaluate, model, image)
            calls[f'{name} 4'] = partial(evaluate, model, image, DRAWS)
        print(f'{size}x{size}, {classes} classes', flush=True)
        times = interleaved(calls, rounds) if rounds else {}
        for row in group:
            macs = gmacs(calls[row.model])
            drawn = gmacs(calls[f'{row.model} 4'])
            latencies = [
                f'{1e3 * median(times[name]):.1f}' if rounds else 'not run'
                for name in (row.model, f'{row.model} 4')
            ]
            lines.append(
                f'| {row.model} | {size}x{size} | {classes} '
                f'| {millions(models[row.model]):.2f} | {macs:.2f} '
                f'| {row.gflops:.2f} | {difference(macs, row.gflops)} '
                f'| {drawn:.2f} | {latencies[0]} | {latencies[1]} '
                f'| {row.milliseconds:.2f} |'
            )
        for row in group[::2]:
            if row.counted is None:
                continue
            model = load(row.config, row.counted.options)
            draws = dict(DRAWS, attention=row.counted.draws, latent=1)
            macs = gmacs(partial(evaluate, model, image, draws))
            lines.append(
                f'| {row.model}, as counted | {size}x{size} | {classes} '
                f'| {millions(model):.2f} | {macs:.2f} | {row.gflops:.2f} '
                f'| {difference(macs, row.gflops)} | | | | |'
            )
            notes[f'{row.model} at {size}x{size}'] = row.counted.layers
    counted = [f'- {name}: {layers}.' for name, layers in notes.items()]
    return [*lines, '', 'As counted:', '', *counted]


def parts(model: Any) -> dict[str, nn.Module]:
    """The rows of Tables 1 and 4, in the order of the data's way."""
    named = dict(model.named_modules())
    shown = [
        *(f'backbone.blocks.{i}' for i in range(9)),
        *(f'backbone.layer{i}' for i in range(1, 5)),
        'backbone',
        'neck.bottleneck.attention.mean_trunk',
        'neck.bottleneck.attention.mean_conv',
        'neck.bottleneck.attention.std_conv',
        'neck.bottleneck.quantizer',
        *(f'neck.neck.blocks.{i}' for i in range(9)),
        'neck.neck',
        'head.pool',
        'head.fc_mean',
        'head.encoder.std',
        'head.hidden',
        *(f'head.layers.{i}' for i in range(4)),
        'head.fc',
    ]
    return {name: named[name] for name in shown if named.get(name) is not None}


class Layer(NamedTuple):
    """Of one image: shape without the batch, parameters, multiply-adds."""

    shape: tuple[int, ...]
    parameters: int
    macs: int


def layers(model: Any, size: int) -> dict[str, Layer]:
    """Each part of :func:`parts`, from one image with one draw of each."""
    shapes: dict[str, tuple[int, ...]] = {}
    macs: dict[str, int] = defaultdict(int)
    counter = FlopCounterMode(display=False)

    def enter(name: str, *_: Any) -> None:
        macs[name] -= counter.get_total_flops() // 2

    def leave(name: str, _: nn.Module, __: tuple, out: Any) -> None:
        macs[name] += counter.get_total_flops() // 2
        out = out if isinstance(out, Tensor) else out[-1]
        shapes[name] = tuple(out.shape[1:])

    with ExitStack() as handles:
        for name, module in parts(model).items():
            for handle in (
                module.register_forward_pre_hook(partial(enter, name)),
                module.register_forward_hook(partial(leave, name)),
            ):
                handles.callback(handle.remove)
        draws = dict(DRAWS, attention=1, latent=1)
        if not any(isinstance(m, LatentEncoder) for m in model.modules()):
            draws.pop('latent')
        with counter:
            evaluate(model, torch.rand(1, 3, size, size), draws)
    return {
        name: Layer(
            shapes[name],
            sum(p.numel() for p in module.parameters()),
            macs[name],
        )
        for name, module in parts(model).items()
        if name in shapes
    }


def layer_table(config: Path, size: int) -> list[str]:
    lines = [
        f'{config.stem}, one image of {size}x{size}:',
        '',
        '| part | output | parameters | M multiply-adds |',
        '|---|---|---|---|',
    ]
    for name, layer in layers(load(config.absolute()), size).items():
        shape = 'x'.join(map(str, layer.shape))
        lines.append(
            f'| {name} | {shape} | {layer.parameters:,} '
            f'| {layer.macs / 1e6:.2f} |'
        )
    return lines


# channels and grid of the features at 300x300: [RECT], Appendix G
MAPPED = {'EfficientNet-B0': (320, 10), 'MobileNetV3-large': (960, 10)}
MAPS = ('PositionWiseAttention', 'RectangularAttention')


def map_table() -> list[str]:
    """Parameters and multiply-adds of the maps, without what they
    modulate."""
    lines = [
        '| features | map | parameters | M multiply-adds '
        '| of the position-wise: parameters | multiply-adds |',
        '|' + '---|' * 6,
    ]
    for network, (channels, side) in MAPPED.items():
        x = torch.rand(1, channels, side, side)
        base: tuple[float, float] | None = None
        for name in MAPS:
            layer = MODELS.build(
                dict(type=f'mmaib.{name}', in_channels=channels)
            )
            found = millions(layer), 1e3 * gmacs(partial(layer, x))
            base = base or found
            shares = [f'{a / b:.2f}' for a, b in zip(found, base)]
            lines.append(
                f'| {network}, {channels}x{side}x{side} | {name} '
                f'| {1e6 * found[0]:,.0f} | {found[1]:.1f} '
                f'| {shares[0]} | {shares[1]} |'
            )
    return [
        *lines,
        '',
        'Appendix G of [RECT]: the rectangular one "is approximately twice '
        'smaller", by the sizes of grids and channels. That holds for no '
        'column above that reads more than 0.5.',
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--rounds', type=int, default=20, help='of timing; 0 times nothing'
    )
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--layers', type=Path, metavar='CONFIG')
    parser.add_argument('--size', type=int, default=32, help='for --layers')
    parser.add_argument(
        '--maps', action='store_true', help='of rectangular attention'
    )
    parser.add_argument('--out', type=Path, help='markdown file to write')
    args = parser.parse_args()
    if args.rounds < 0:
        parser.error(f'--rounds must be >= 0, got {args.rounds}')
    if args.layers and not args.layers.is_file():
        parser.error(f'--layers: no file {args.layers}')
    torch.set_num_threads(args.threads)
    if args.layers:
        lines = layer_table(args.layers, args.size)
    elif args.maps:
        lines = map_table()
    else:
        lines = [
            f'Times: {args.threads} thread(s) of {platform.machine()}, median '
            f'of {args.rounds} interleaved rounds; the paper: one Titan Xp.',
            '',
            *table(args.rounds),
        ]
    text = '\n'.join([*lines, ''])
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == '__main__':
    main()
