"""Table 3 of [AIB]: multiply-adds and time of its classifiers, the paper's
beside mmaib's.

    python tools/experiments/complexity.py --out work_dirs/complexity.md

The paper's "FLOPs" are multiply-adds. Ours are those of convolutions and
matrix products of one image at the mean, and with L_a = L_z = 4. Where they
are not the paper's, a row `as counted` has a model whose count they are, and
the layers it differs in: inferred, the paper does not say. Times are of
one image on this machine, on a GPU if there is one, all variants interleaved;
the paper's are of a Titan Xp.

    python tools/experiments/complexity.py --layers CONFIG [--size 224]

writes Table 1 or 4 for a model: output shape, parameters and multiply-adds of
each part.

    python tools/experiments/complexity.py --maps

writes what the maps of [RECT] take at its two networks' features, beside what
it says of them.
"""

import argparse
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmaib.cli.launch import device_argument
from mmaib.cli.runs import device_name
from mmaib.cost import gmacs, interleaved, millions
from mmaib.layers import LatentEncoder
from mmaib.visualization.tables import markdown

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSIFICATION = CONFIGS / 'classification'

DRAWS = dict(attention=4, latent=4, seed=0)
DRAWN = 'L_a = L_z = 4'


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


def wrn28(classes: int) -> Counted:
    """The only network that fits without a remainder."""
    return Counted(
        {
            'model.backbone.strides': (1, 1),
            'model.neck.neck.strides': (4,),
            'model.neck.bottleneck.attention.mean_trunk.last_conv': classes,
        },
        1,
        "the authors' code's map, 640 channels to one score a class and these "
        'to one, on 32x32: block 2 has stride 1, the encoder ends at 8x8',
    )


WRN50 = Counted(
    {'model.neck.neck.stride': 1},
    4,
    'a guess: block 4 of the encoder at stride 1, on 14x14, and once for each '
    'of L_a = 4 maps, 4 x 8.22 G instead of 2.21 G',
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


# size of the image, classes, end of the config's name, and of each model the
# paper's G multiply-adds and ms, and the model that has this count
TABLE = (
    (32, 10, '1xb128-200e_cifar10', (
        ('vgg16-aib', 3.79, 3.43, None),
        ('vgg16-aib-qt', 3.79, 3.68, None),
        ('wrn28-10-aib', 39.14, 8.53, wrn28(10)),
        ('wrn28-10-aib-qt', 39.14, 8.55, None),
    )),
    (32, 100, '1xb128-200e_cifar100', (
        ('vgg16-aib', 3.79, 3.51, None),
        ('vgg16-aib-qt', 3.79, 3.70, None),
        ('wrn28-10-aib', 39.20, 8.60, wrn28(100)),
        ('wrn28-10-aib-qt', 39.20, 8.84, None),
    )),
    (224, 200, '1xb16-200e_cub-224x224', (
        ('vgg16-aib', 16.75, 3.58, VGG),
        ('vgg16-aib-qt', 16.75, 3.81, None),
        ('wrn50-2-aib', 50.97, 10.47, WRN50),
        ('wrn50-2-aib-qt', 50.97, 10.66, None),
    )),
)  # fmt: skip
HEAD = (
    'model', 'input', 'classes', 'M parameters', 'G multiply-adds', 'paper',
    'difference', DRAWN, 'ms', f'ms, {DRAWN}', 'paper, ms',
)  # fmt: skip


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


def table(rounds: int, device: torch.device) -> list[str]:
    rows, notes = [[*HEAD]], dict[str, str]()
    for size, classes, data, group in TABLE:
        where = f'{size}x{size}', str(classes)
        print(f'{where[0]}, {classes} classes', flush=True)
        image = torch.rand(1, 3, size, size)
        configs = {
            name: f'{name.partition("-aib")[0]}/{name}_{data}.py'
            for name, *_ in group
        }
        models = {name: load(config) for name, config in configs.items()}
        calls = {
            f'{name}{ending}': partial(evaluate, model, image, draws)
            for name, model in models.items()
            for ending, draws in (('', None), (DRAWN, DRAWS))
        }
        times = interleaved(calls, rounds, device) if rounds else {}
        found = []
        for name, gflops, milliseconds, _ in group:
            latencies = [
                f'{1e3 * median(times[key]):.1f}' if times else 'not run'
                for key in (name, name + DRAWN)
            ]
            more = [f'{gmacs(calls[name + DRAWN]):.2f}', *latencies]
            more.append(f'{milliseconds:.2f}')
            found.append((name, models[name], calls[name], gflops, more))
        for name, gflops, _, counted in group:
            if counted:
                model = load(configs[name], counted.options)
                draws = dict(DRAWS, attention=counted.draws, latent=1)
                call = partial(evaluate, model, image, draws)
                label = f'{name}, as counted'
                found.append((label, model, call, gflops, [''] * 4))
                notes[f'{name} at {where[0]}'] = counted.layers
        for label, model, call, gflops, more in found:
            macs = gmacs(call)
            cells = [f'{millions(model):.2f}', f'{macs:.2f}', f'{gflops:.2f}']
            cells.append(f'{100 * (macs - gflops) / gflops:+.1f} %')
            rows.append([label, *where, *cells, *more])
    lines = [f'- {name}: {layers}.' for name, layers in notes.items()]
    return [*markdown(rows), '', 'As counted:', '', *lines]


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


def layers(model: Any, size: int) -> dict[str, tuple[str, int, int]]:
    """For each part of :func:`parts`: shape without the batch, parameters and
    multiply-adds, from one image with one draw of each."""
    shapes: dict[str, str] = {}
    macs: dict[str, int] = defaultdict(int)
    counter = FlopCounterMode(display=False)

    def enter(name: str, *_: Any) -> None:
        macs[name] -= counter.get_total_flops() // 2

    def leave(name: str, _: nn.Module, __: tuple, out: Any) -> None:
        macs[name] += counter.get_total_flops() // 2
        out = out if isinstance(out, Tensor) else out[-1]
        shapes[name] = 'x'.join(map(str, out.shape[1:]))

    for name, module in parts(model).items():
        module.register_forward_pre_hook(partial(enter, name))
        module.register_forward_hook(partial(leave, name))
    draws = dict(DRAWS, attention=1, latent=1)
    if not any(isinstance(m, LatentEncoder) for m in model.modules()):
        draws.pop('latent')
    with counter:
        evaluate(model, torch.rand(1, 3, size, size), draws)
    return {
        name: (
            shapes[name],
            sum(p.numel() for p in module.parameters()),
            macs[name],
        )
        for name, module in parts(model).items()
        if name in shapes
    }


def layer_table(config: Path, size: int) -> list[str]:
    rows = [['part', 'output', 'parameters', 'M multiply-adds']]
    found = layers(load(config.absolute()), size)
    for name, (shape, parameters, macs) in found.items():
        rows.append([name, shape, f'{parameters:,}', f'{macs / 1e6:.2f}'])
    title = f'{config.stem}, one image of {size}x{size}:'
    return [title, '', *markdown(rows)]


# channels and grid of the features at 300x300: [RECT], Appendix G
MAPPED = {'EfficientNet-B0': (320, 10), 'MobileNetV3-large': (960, 10)}
MAPS = ('PositionWiseAttention', 'RectangularAttention')


def map_table() -> list[str]:
    """Parameters and multiply-adds of the maps, without what they
    modulate."""
    rows = [
        [
            'features', 'map', 'parameters', 'M multiply-adds',
            'of the position-wise: parameters', 'multiply-adds',
        ]
    ]  # fmt: skip
    for network, (channels, side) in MAPPED.items():
        x = torch.rand(1, channels, side, side)
        costs = {}
        for name in MAPS:
            layer = MODELS.build(
                dict(type=f'mmaib.{name}', in_channels=channels)
            )
            costs[name] = millions(layer), 1e3 * gmacs(partial(layer, x))
        base = costs[MAPS[0]]
        for name, (parameters, macs) in costs.items():
            rows.append(
                [
                    f'{network}, {channels}x{side}x{side}',
                    name,
                    f'{1e6 * parameters:,.0f}',
                    f'{macs:.1f}',
                    *(f'{a / b:.2f}' for a, b in zip(costs[name], base)),
                ]
            )
    return [
        *markdown(rows),
        '',
        'Appendix G of [RECT]: the rectangular one "is approximately twice '
        'smaller", by the sizes of grids and channels. That holds for no '
        'column above that reads more than 0.5.',
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('--rounds', type=int, default=20, help='of timing; 0 times nothing')
    add('--threads', type=int, default=1)
    add('--device', type=device_argument, default=get_device())
    add('--layers', type=Path, metavar='CONFIG')
    add('--size', type=int, default=32, help='for --layers')
    add('--maps', action='store_true', help='of rectangular attention')
    add('--out', type=Path, help='markdown file to write')
    args = parser.parse_args()
    if args.rounds < 0:
        parser.error(f'--rounds must be >= 0, got {args.rounds}')
    if args.layers and not args.layers.is_file():
        parser.error(f'--layers: no file {args.layers}')
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    if args.layers:
        lines = layer_table(args.layers, args.size)
    elif args.maps:
        lines = map_table()
    else:
        lines = [
            f'Times: {device_name()}, {args.threads} thread(s), median of '
            f'{args.rounds} interleaved rounds; the paper: one Titan Xp.',
            '',
            *table(args.rounds, args.device),
        ]
    text = '\n'.join([*lines, ''])
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == '__main__':
    main()
