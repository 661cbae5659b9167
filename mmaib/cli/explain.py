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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np

from mmaib import preflight
from mmaib.checks import one_of
from mmaib.explanations import Explanation, Settings, explanation_of
from mmaib.explanations.baselines import BASELINES
from mmaib.explanations.explain import (
    Prepared,
    data_of,
    default_place,
    frozen,
    see,
    targets,
)
from mmaib.explanations.page import page, picture
from mmaib.explanations.places import Place, statistics
from mmaib.explanations.targets import Target
from mmaib.files import write_whole
from mmaib.visualization.image_sources import images

from .cfg_options import options_of
from .launch import device_of
from .loading import base_config, load_model
from .visualize import unused

# images whose features give the noise of the gate
STATISTICS = 24


def prepare(args: argparse.Namespace) -> Callable[[], None]:
    """Load the model, and refuse what is not there."""
    preflight.check_checkpoint('checkpoint', str(args.checkpoint))
    if args.out.exists() and any(args.out.iterdir()):
        raise ValueError(f'--out {args.out}: not empty, take another folder')
    if (args.missed is None) != (args.as_name is None):
        raise ValueError('--missed X1 Y1 X2 Y2 and --as NAME go together')
    settings = settings_of(args)
    paths = [path for given in args.images for path in images(given)]
    others = images(args.statistics)[:STATISTICS] if args.statistics else []
    cfg = base_config(args.config)
    cfg.merge_from_dict(options_of(args.cfg_options))
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
    # before work: an image with predictions that can be explained
    reasons = []
    with frozen(model):
        while paths:
            found, reason = statements(model, place, paths[0], asked)
            if found:
                break
            reasons.append(reason)
            paths = paths[1:]
    if not paths:
        raise ValueError(reasons[0])
    for reason in reasons:
        print(f'skipped: {reason}')
    return partial(work, args, settings, model, place, paths, others, asked)


def settings_of(args: argparse.Namespace) -> Settings:
    steps = 20 if args.steps is None else args.steps
    if args.baseline is None:
        return Settings(beta=args.beta, steps=steps, seed=args.seed)
    one_of('--baseline', args.baseline, BASELINES)
    if args.steps is not None:
        raise ValueError('--baseline: it takes no --steps')
    if args.missed is not None:
        raise ValueError('--baseline: none of them explains --missed')
    return Settings(steps=0, seed=args.seed, start=args.baseline)


def loaded(
    model: Any, place: Place, path: Path
) -> tuple[Prepared | None, str]:
    """An image as the model sees it, or None and why."""
    try:
        data = data_of(model, path)
    except Exception as error:  # of whatever loads it
        return None, f'{path} cannot be loaded: {error or type(error)}'
    return see(model, place, data), ''


def statements(
    model: Any, place: Place, path: Path, asked: dict[str, Any]
) -> tuple[tuple[Prepared, list[Target]] | None, str]:
    """An image as the model sees it and what is asked for of it, or None
    and why."""
    seen, reason = loaded(model, place, path)
    if seen is None:
        return None, reason
    try:
        return (seen, targets(model, seen, **asked)), ''
    except ValueError as error:
        return None, f'{path}: {error}'


def work(
    args: argparse.Namespace,
    settings: Settings,
    model: Any,
    place: Place,
    paths: list[Path],
    others: list[Path],
    asked: dict[str, Any],
) -> None:
    """Explain image by image; what is done so far is on the disk after each,
    and the page too if the rest is cut off."""
    args.out.mkdir(parents=True, exist_ok=True)
    shown: dict[str, tuple[np.ndarray, list[Explanation]]] = {}
    records: list[dict[str, Any]] = []
    with frozen(model):
        seen_of = [
            loaded(model, place, path)[0]
            for path in others or paths[:STATISTICS]
        ]
        moments = statistics(place, [s.images for s in seen_of if s])
        try:
            for path in paths:
                there, reason = statements(model, place, path, asked)
                if there is None:
                    print(f'skipped: {reason}')
                    continue
                name = unused(path.stem, shown)  # of another folder
                image = mmcv.imread(str(path), channel_order='rgb')
                found: list[Explanation] = []
                for count, target in enumerate(there[1]):
                    one = explanation_of(
                        target, place, there[0], moments, settings,
                        missed=args.missed is not None,
                    )  # fmt: skip
                    found.append(one)
                    shown[name] = image, found
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
                write_numbers(args, settings, place, records)
        finally:
            if records:
                write_numbers(args, settings, place, records)
                write_page(args, shown)
    print(args.out / 'explained.html')


def write_numbers(
    args: argparse.Namespace,
    settings: Settings,
    place: Place,
    records: list[dict[str, Any]],
) -> None:
    content = dict(
        config=str(args.config),
        checkpoint=str(args.checkpoint),
        at=place.name,
        settings=vars(settings),
        explanations=records,
    )
    text = json.dumps(content, indent=1)
    write_whole(args.out / 'explained.json', text.encode())


def write_page(args: argparse.Namespace, shown: Mapping[str, Any]) -> None:
    title, command = f'Explained: {Path(args.config).stem}', args.command
    missed = args.missed is not None
    text = page(shown, title, shlex.join(command), missed)
    write_whole(args.out / 'explained.html', text.encode())
