"""What do a trained model's predictions rest on, one by one?

    mmaib explain CONFIG CHECKPOINT IMAGE... --out DIR

of a detector's boxes, a segmentor's regions, a classifier's class. An
information gate over the frozen model's features is optimised for each
prediction to let through as few bits as its probability needs; nothing is
trained that stays. DIR, which must be new or empty, gets a picture for each
prediction, explained.json, and explained.html, on which boxes are clicked.

`--missed X1 Y1 X2 Y2 --as NAME` explains an object that a two-stage detector
did not find: which bits would have to be shut for it to be found there.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np

from mmaib import preflight
from mmaib.checks import one_of
from mmaib.explanations import Explanation, Settings, explanation_of
from mmaib.explanations.baselines import BASELINES
from mmaib.explanations.explain import (
    data_of,
    default_place,
    frozen,
    pipeline_of,
    see,
    targets,
)
from mmaib.explanations.page import page, picture
from mmaib.explanations.places import Place, statistics
from mmaib.explanations.targets import Target
from mmaib.files import check_empty, write_whole
from mmaib.preflight.fields import named
from mmaib.visualization.image_sources import as_loaded, images

from .launch import device_of
from .loading import load_model, read_config
from .visualize import unused

# images whose features give the noise of the gate
STATISTICS = 24


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Load the model, and refuse what is not there."""
    preflight.check_checkpoint('checkpoint', str(args.checkpoint))
    check_empty('--out', args.out)
    if (args.missed is None) != (args.as_name is None):
        raise ValueError('--missed X1 Y1 X2 Y2 and --as NAME go together')
    if args.missed and (args.class_name or args.detection is not None):
        raise ValueError(
            '--missed: its class is --as; it takes no --class '
            'and no --detection'
        )
    settings = settings_of(args)
    paths = [path for given in args.images for path in images(given)]
    others = images(args.statistics)[:STATISTICS] if args.statistics else []
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, device_of(args.device))
    place = Place(model, args.at or default_place(model))
    asked = dict(
        detection=args.detection,
        class_name=args.as_name or args.class_name,
        against=args.against,
        missed_box=args.missed,
        point=args.point,
        score_thr=args.score_thr,
        at_most=args.max_explained,
    )
    each = statements(model, place, paths, asked)
    skipped = []
    with frozen(model):
        # before work: an image with predictions that can be explained
        for first in each:
            if not first.reason:
                break
            skipped.append(first.reason)
        else:
            raise ValueError(skipped[0])
        batches = [] if others else [first.seen.images]
        for path in others or paths[len(skipped) + 1 :][: STATISTICS - 1]:
            try:
                batches.append(see(model, place, data_of(model, path)).images)
            except (ValueError, FileNotFoundError) as error:
                # others are met again
                skipped += [str(error)] if others else []
    if not batches:
        raise ValueError(
            f'--statistics {args.statistics}: none of the images in it can '
            'be loaded'
        )
    for reason in skipped:
        print(f'skipped: {reason}')
    if (getattr(model, 'test_cfg', None) or {}).get('mode') == 'slide':
        print('explained is one pass over the whole image, not windows of it')
    return partial(work, args, settings, model, place, batches, first, each)


def settings_of(args: argparse.Namespace) -> Settings:
    steps = 20 if args.steps is None else args.steps
    if args.baseline is None:
        beta = 0.3 if args.beta is None else args.beta
        return Settings(beta=beta, steps=steps, seed=args.seed)
    one_of('--baseline', args.baseline, BASELINES)
    if args.steps is not None or args.beta is not None:
        raise ValueError('--baseline: it takes no --steps and no --beta')
    if args.missed is not None:
        raise ValueError('--baseline: none of them explains --missed')
    return Settings(steps=0, seed=args.seed, start=args.baseline)


class Stated(NamedTuple):
    """An image as the model sees it, and what is asked for of it."""

    path: Path
    seen: Any = None
    targets: Sequence[Target] = ()
    reason: str = ''  # why there is nothing


def statements(
    model: Any, place: Place, paths: Sequence[Path], asked: dict[str, Any]
) -> Iterator[Stated]:
    for path in paths:
        try:
            seen = see(model, place, data_of(model, path))
            with named(str(path)):
                found = targets(model, seen, **asked)
            yield Stated(path, seen, found)
        except (ValueError, FileNotFoundError) as error:
            yield Stated(path, reason=str(error))


def work(
    args: argparse.Namespace,
    settings: Settings,
    model: Any,
    place: Place,
    batches: Sequence[Any],
    first: Stated,
    each: Iterable[Stated],
) -> None:
    """Explain image by image; what is done so far is on the disk after each,
    and the page too if the rest is cut off."""
    args.out.mkdir(parents=True, exist_ok=True)
    missed = args.missed is not None
    shown: dict[str, tuple[np.ndarray, list[Explanation]]] = {}
    records: list[dict[str, Any]] = []

    def write(name: str, text: str) -> None:
        write_whole(args.out / name, text.encode())

    def write_numbers() -> None:
        content = dict(
            config=str(args.config),
            checkpoint=str(args.checkpoint),
            at=place.name,
            settings=vars(settings),
            explanations=records,
        )
        write('explained.json', json.dumps(content, indent=1))

    pipeline = pipeline_of(model)
    with frozen(model):
        moments = statistics(place, batches)
        try:
            for path, seen, found, reason in chain([first], each):
                if reason:
                    print(f'skipped: {reason}')
                    continue
                name = unused(path.stem, shown)  # of another folder
                image = as_loaded(pipeline, path)
                for count, target in enumerate(found):
                    one = explanation_of(
                        target, place, seen, moments, settings, missed=missed
                    )
                    shown.setdefault(name, (image, []))[1].append(one)
                    records.append(dict(image=str(path), **one.summary()))
                    drawn = picture(image, one)[..., ::-1]
                    mmcv.imwrite(drawn, str(args.out / f'{name}.{count}.png'))
                    print(
                        f'{name}: {one.name} {one.score:.2f}, '
                        f'{one.bits.sum():.0f} bits, {one.kept:.2f} with them '
                        f'alone, {one.without:.2f} without, '
                        f'{one.seconds:.1f} s',
                        flush=True,
                    )
                write_numbers()
        finally:
            if records:
                write_numbers()
                title = f'Explained: {Path(args.config).stem}'
                command = shlex.join(args.command)
                write('explained.html', page(shown, title, command, missed))
    print(args.out / 'explained.html')
