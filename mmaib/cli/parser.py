"""Arguments of every `mmaib` command. Nothing here imports torch, so that
`--help` answers at once; a command's module is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

ATTENTIONS = ('gate', 'readout', 'aib', 'aib-qt')
PLACES = ('before', 'after')
DEFAULT = 'default: %(default)s'
Parser = argparse.ArgumentParser


def number(kind: type, least: float, name: str) -> Callable[[str], Any]:
    """The type of an argument that is finite and not below this."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = least - 1
        if not least <= value < float('inf'):
            raise argparse.ArgumentTypeError(
                f'must be {name} >= {least}, got {text!r}'
            )
        return value

    return parse


positive = number(int, 1, 'an integer')
natural = number(int, 0, 'an integer')
price = number(float, 0, 'a number')


def _common(parser: Parser, device: bool = True) -> None:
    """What most commands take."""
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='FIELD=VALUE',
        help='override fields of the config: model.train_draws=mean',
    )  # fmt: skip
    if device:
        parser.add_argument('--device', help='default: a GPU if there is one')


def wrap(parser: Parser) -> None:
    add = parser.add_argument
    add('config', nargs='?', help='path, or a name such as mmdet::...')
    add('--out', help='.py file to write')
    add(
        '--list', action='store_true',
        help='print the families of base models that were tried, and leave',
    )  # fmt: skip
    add('--attention', choices=ATTENTIONS, default='gate', help=DEFAULT)
    add(
        '--latent', action='store_true',
        help="make the head's last feature a Gaussian latent",
    )  # fmt: skip
    add('--where', choices=PLACES, help='of the neck; not with --at')
    add('--at', help='block of the backbone to attend after, not at the neck')
    add(
        '--inside', metavar='FIELD',
        help="model inside the config's; default: the only one, such as a "
        "tracker's detector",
    )  # fmt: skip
    add(
        '--size', nargs=2, type=positive, metavar=('HEIGHT', 'WIDTH'),
        help='of the image that is passed through the model',
    )  # fmt: skip
    add(
        '--iterations', type=positive,
        help='training length of --attention readout; default: 200',
    )  # fmt: skip


def readout(parser: Parser) -> None:
    add = parser.add_argument
    add('config', help="the model's, or mmdet::...")
    add('checkpoint', type=Path)
    add('--out', type=Path, required=True)
    add('--iterations', type=positive, default=200, help=DEFAULT)
    add('--seed', type=natural, default=1)
    add('--pictures', type=natural, default=16, help=DEFAULT)
    _common(parser, device=False)


def visualize(parser: Parser) -> None:
    add = parser.add_argument
    add('config', type=Path)
    add('checkpoint', type=Path)
    add(
        'images', type=Path, nargs='*',
        help='images, or folders of them; default: the test images',
    )  # fmt: skip
    add('--out', type=Path, required=True)
    add('--score-thr', type=float, default=0.3)
    add('--max-images', type=positive)
    _common(parser)


def explain(parser: Parser) -> None:
    add = parser.add_argument
    add('config', help="the model's, or mmdet::...")
    add('checkpoint', type=Path)
    add('images', nargs='+', type=Path, help='images, or folders of them')
    add('--out', type=Path, required=True)
    add(
        '--detection',
        type=natural,
        metavar='K',
        help='the Kth box by score, from 0',
    )
    add('--class', dest='class_name', metavar='NAME', help='of this class')
    add('--against', metavar='NAME', help="and not this one: a classifier's")
    add(
        '--missed', nargs=4, type=float, metavar=('X1', 'Y1', 'X2', 'Y2'),
        help='an object that was not found, with --as NAME',
    )  # fmt: skip
    add('--as', dest='as_name', metavar='NAME')
    add(
        '--point', nargs=2, type=float, metavar=('X', 'Y'),
        help="a segmentor's region",
    )  # fmt: skip
    add(
        '--at',
        help="'neck', 'backbone' or a module; default: the neck, a "
        "classifier's backbone",
    )
    add('--score-thr', type=float, default=0.3, help=DEFAULT)
    add(
        '--max-explained', type=positive, default=20,
        help='predictions per image; ' + DEFAULT,
    )  # fmt: skip
    add(
        '--statistics', type=Path, metavar='FOLDER',
        help="a few dozen images of the model's kind, for the gate's noise; "
        'default: those that are explained',
    )  # fmt: skip
    add('--beta', type=price, help='price of the bits; default: 0.3')
    add('--steps', type=natural, help='of the optimisation, 20')
    add(
        '--baseline', metavar='NAME',
        help="another method's map instead, as the gate's openness: "
        'layer-cam, odam, grad-cam, d-rise, norm, centre, box, random',
    )  # fmt: skip
    add('--seed', type=natural, default=0)
    _common(parser)


def report(parser: Parser) -> None:
    add = parser.add_argument
    add('work_dirs', nargs='+', type=Path)
    add('--out', type=Path, help='default: report.html in the first work dir')
    add('--title', help="default: the work dirs' names")
    add(
        '--max-images', type=natural, default=48,
        help=f'of a run, worst first; {DEFAULT}',
    )  # fmt: skip


def _runner(parser: Parser) -> None:
    """What MM users know from every tool."""
    add = parser.add_argument
    add('config', help='config file')
    add('--work-dir', help='folder for logs and checkpoints')
    _common(parser, device=False)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    add('--launcher', choices=launchers, default='none')
    add('--local_rank', '--local-rank', type=int, default=0)
    add('--amp', action='store_true', help='mixed precision, on a GPU')
    for field in ('pin-memory', 'persistent-workers'):
        add(
            f'--no-{field}', action='store_true',
            help=f'{field.replace("-", "_")}=False in every dataloader',
        )  # fmt: skip


def train(parser: Parser) -> None:
    _runner(parser)
    add = parser.add_argument
    add(
        '--resume', nargs='?', const='auto',
        help='resume from this checkpoint, or without a value from the '
        'latest one in the work dir',
    )  # fmt: skip
    add(
        '--auto-scale-lr', action='store_true',
        help="scale the lr from the config's base batch size to the real one",
    )  # fmt: skip
    add(
        '--no-validate', action='store_true',
        help='train without evaluating checkpoints',
    )  # fmt: skip


def test(parser: Parser) -> None:
    _runner(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file')
    add(
        '--out',
        help='dump predictions to this .pkl file; those of a segmentor also '
        'to a folder, as images of labels',
    )  # fmt: skip
    add(
        '--out-item', choices=['pred', 'metrics'],
        help="what --out is for: predictions, or metrics ('.json', ...)",
    )  # fmt: skip
    add(
        '--tta', action='store_true',
        help="test-time augmentation by the config's tta_pipeline and "
        'tta_model; without them the image and its mirror image',
    )  # fmt: skip
    add('--show', action='store_true', help='show predictions')
    add(
        '--show-dir',
        help="save drawn predictions here; a detector's under the work dir",
    )  # fmt: skip
    add('--wait-time', type=float, default=2, help='seconds of each --show')
    add(
        '--interval', type=positive, default=1,
        help='of the images that a classifier shows',
    )  # fmt: skip


# by its module's name: what adds its arguments, and what it does
COMMANDS: dict[str, tuple[Callable[[Parser], None] | None, str]] = {
    'doctor': (None, 'versions, compiled operators, what is missing'),
    'wrap': (wrap, 'write a short config with attention over a config'),
    'readout': (
        readout,
        'train the map of a data set over a frozen model and measure it',
    ),
    'visualize': (visualize, 'draw attention maps of images and folders'),
    'explain': (explain, 'show what single predictions rest on'),
    'report': (report, 'one HTML page about runs'),
    'train': (train, 'train a config'),
    'test': (test, 'evaluate a checkpoint'),
}


def parser_of(name: str, prog: str | None = None) -> Parser:
    """The parser of a command.

    Args:
        name: of ``COMMANDS``.
        prog: shown in its usage; ``mmaib NAME`` by default.
    """
    add_arguments, what = COMMANDS[name]
    parser = Parser(prog or f'mmaib {name}', description=what)
    if add_arguments:
        add_arguments(parser)
    return parser
