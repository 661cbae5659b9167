"""Arguments of every `mmaib` command. Nothing here imports torch, so that
`--help` answers at once; a command's module is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ATTENTIONS = ('gate', 'readout', 'aib', 'aib-qt')
PLACES = ('before', 'after')
Parser = argparse.ArgumentParser


class Command(NamedTuple):
    """One command.

    Attributes:
        module: of :mod:`mmaib.cli`; its ``main`` takes the arguments.
        help: one line.
        arguments: adds them to a parser.
    """

    module: str
    help: str
    arguments: Callable[[Parser], None]


def positive(text: str) -> int:
    """An integer of at least 1."""
    return _at_least(text, 1)


def natural(text: str) -> int:
    """An integer of at least 0."""
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f'must be an integer >= {least}, got {text!r}'
        )
    return value


def config_and_checkpoint(text: str) -> tuple[Path, Path]:
    """CONFIG=CHECKPOINT."""
    config, _, checkpoint = text.partition('=')
    if not checkpoint:
        raise argparse.ArgumentTypeError(f'{text}: not CONFIG=CHECKPOINT')
    return Path(config), Path(checkpoint)


def _options(parser: Parser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='FIELD=VALUE',
        help='override fields of the config: model.train_draws=mean',
    )


def _device(parser: Parser) -> None:
    parser.add_argument('--device', help='default: a GPU if there is one')


def doctor(parser: Parser) -> None:
    """No arguments."""


def wrap(parser: Parser) -> None:
    parser.add_argument(
        'config', nargs='?', help='path, or a name such as mmdet::...'
    )
    parser.add_argument('--out', help='.py file to write')
    parser.add_argument(
        '--list',
        action='store_true',
        help='print the families of base models that were tried, and leave',
    )
    parser.add_argument(
        '--attention',
        choices=ATTENTIONS,
        default='gate',
        help='default: %(default)s',
    )
    parser.add_argument(
        '--latent',
        action='store_true',
        help="make the head's last feature a Gaussian latent",
    )
    parser.add_argument(
        '--where', choices=PLACES, help="before or after the model's neck"
    )
    parser.add_argument(
        '--at', help='block of the backbone to attend after, not at the neck'
    )
    parser.add_argument(
        '--inside',
        metavar='FIELD',
        help="model inside the config's; default: the only one, such as a "
        "tracker's detector",
    )
    parser.add_argument(
        '--check', metavar='CHECKPOINT', help="compare a checkpoint's keys"
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=positive,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the image that is passed through the model',
    )
    parser.add_argument(
        '--iterations',
        type=positive,
        default=200,
        help='training length of --attention readout; default: %(default)s',
    )


def readout(parser: Parser) -> None:
    parser.add_argument('config', help="the model's, or mmdet::...")
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--iterations',
        type=positive,
        default=200,
        help='default: %(default)s',
    )
    parser.add_argument('--seed', type=natural, default=1)
    parser.add_argument(
        '--pictures', type=natural, default=16, help='default: %(default)s'
    )
    parser.add_argument(
        '--grad-cam',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='evaluate Grad-CAM in the same gate',
    )
    _device(parser)
    _options(parser)


def visualize(parser: Parser) -> None:
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument(
        'images',
        type=Path,
        nargs='?',
        help='an image, a video or a folder; default: the test images',
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--beside',
        nargs='+',
        type=config_and_checkpoint,
        default=[],
        metavar='CONFIG=CHECKPOINT',
        help='more models, a row each',
    )
    parser.add_argument(
        '--draws', type=natural, default=0, help='single samples to show'
    )
    parser.add_argument(
        '--stride', type=positive, default=1, help="of a video's frames"
    )
    parser.add_argument('--score-thr', type=float, default=0.3)
    parser.add_argument('--max-images', type=positive)
    _device(parser)
    _options(parser)


def explain(parser: Parser) -> None:
    parser.add_argument('config', help="the model's, or mmdet::...")
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument(
        'images', nargs='+', type=Path, help='images, or folders of them'
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--detection', type=natural, metavar='K', help='the Kth box by score'
    )
    parser.add_argument(
        '--class', dest='class_name', metavar='NAME', help='of this class'
    )
    parser.add_argument(
        '--against', metavar='NAME', help="and not this one: a classifier's"
    )
    parser.add_argument(
        '--missed',
        nargs=4,
        type=float,
        metavar=('X1', 'Y1', 'X2', 'Y2'),
        help='an object that was not found, with --as NAME',
    )
    parser.add_argument('--as', dest='as_name', metavar='NAME')
    parser.add_argument(
        '--point',
        nargs=2,
        type=float,
        metavar=('X', 'Y'),
        help="a segmentor's region",
    )
    parser.add_argument(
        '--at', help="'neck', 'backbone' or a module; default: the neck"
    )
    parser.add_argument('--score-thr', type=float, default=0.3)
    parser.add_argument('--max-explained', type=positive, default=20)
    parser.add_argument(
        '--statistics',
        type=Path,
        metavar='FOLDER',
        help="a few dozen images of the model's kind, for the gate's noise; "
        'default: those that are explained',
    )
    parser.add_argument(
        '--beta', type=float, default=0.3, help='price of the bits'
    )
    parser.add_argument(
        '--steps', type=natural, default=20, help='of the optimisation'
    )
    parser.add_argument(
        '--baseline',
        metavar='NAME',
        help="another method's map instead, as the gate's openness: "
        'layer-cam, odam, grad-cam, d-rise, norm, centre, box, random',
    )
    parser.add_argument('--seed', type=natural, default=0)
    _device(parser)
    _options(parser)


def report(parser: Parser) -> None:
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument(
        '--out', type=Path, help='default: report.html in the first work dir'
    )
    parser.add_argument('--title', help="default: the work dirs' names")
    parser.add_argument(
        '--max-images',
        type=natural,
        default=48,
        help='of a run, worst first; default: %(default)s',
    )


def _runner(parser: Parser) -> None:
    """What MM users know from every tool."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    _options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, on a GPU'
    )
    for field in ('pin-memory', 'persistent-workers'):
        parser.add_argument(
            f'--no-{field}',
            action='store_true',
            help=f'{field.replace("-", "_")}=False in every dataloader',
        )


def train(parser: Parser) -> None:
    _runner(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the '
        'latest one in the work dir',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the lr from the config's base batch size to the real one",
    )
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='train without evaluating checkpoints',
    )


def test(parser: Parser) -> None:
    _runner(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        help='dump predictions to this .pkl file; those of a segmentor also '
        'to a folder, as images of labels',
    )
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        help="what --out is for: predictions, or metrics ('.json', ...)",
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_pipeline and "
        'tta_model; without them the image and its mirror image',
    )
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument(
        '--show-dir',
        help="save drawn predictions here; a detector's under the work dir",
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds of each --show'
    )
    parser.add_argument(
        '--interval',
        type=positive,
        default=1,
        help='of the images that a classifier shows',
    )


COMMANDS = {
    'doctor': Command(
        'doctor', 'versions, compiled operators, what is missing', doctor
    ),
    'wrap': Command(
        'wrap', 'write a short config with attention over a config', wrap
    ),
    'readout': Command(
        'readout',
        'train the map of a data set over a frozen model and measure it',
        readout,
    ),
    'visualize': Command(
        'visualize',
        'draw attention maps of images, folders, videos',
        visualize,
    ),
    'explain': Command(
        'explain', 'show what single predictions rest on', explain
    ),
    'report': Command('report', 'one HTML page about runs', report),
    'train': Command('train', 'train a config', train),
    'test': Command('test', 'evaluate a checkpoint', test),
}


def parser_of(name: str, prog: str | None = None) -> Parser:
    """The parser of a command.

    Args:
        name: of ``COMMANDS``.
        prog: shown in its usage; ``mmaib NAME`` by default.
    """
    command = COMMANDS[name]
    parser = Parser(prog or f'mmaib {name}', description=command.help)
    command.arguments(parser)
    return parser
