"""Who explains a detection best? Every method on the same detections, by the
same referee.

    python tools/experiments/explanations.py CONFIG CHECKPOINT --name trees \\
        --seed 1 --records FILE.jsonl --detections 100

explains the detections of the test images (score at least 0.5, at least 400
pixels of the model's input, --per-image of each) and adds a line a detection
to FILE; detections that have one are skipped. The bottleneck's settings are
the command's own. With

    --randomise 12

it adds instead how far the maps of twelve detections stay as they were when
the weights of head, neck and backbone are shuffled, one after the other
(Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018), and when
the seed is another: Spearman's rank correlation over the pixels of the box.

    --readout CONFIG CHECKPOINT

adds the map of a readout of that model (`mmaib readout`), within the box: one
map for all objects, trained once for a data set.

    --judge CHECKPOINT

adds a score by a detector that has seen hidden parts (judge.py).

    python tools/experiments/explanations.py --table FILE.jsonl

prints the bottleneck's paired differences with their 95 % intervals, by a
bootstrap of photographs and, over three trainings or more, by Student's t of
their means; then for each name in FILE the mean of every measure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from explanations_table import OWN, table
from insertion_deletion import (
    AREA,
    blank,
    detected,
    discrimination,
    insertion_deletion,
    kept_at_equal_bits,
    location,
    rank_correlation,
)
from mmengine.registry import DATASETS
from torch import Tensor, nn

from mmaib.cli.loading import load_model, read_config
from mmaib.cli.main import reuse_memory
from mmaib.cli.runs import commit, device_name
from mmaib.evaluation.map_geometry import spread
from mmaib.explanations import (
    Place,
    Settings,
    per_sample_bottleneck,
    statistics,
)
from mmaib.explanations.baselines import BASELINES, box, explain_by, of_images
from mmaib.explanations.bottleneck import optimised
from mmaib.explanations.explain import Prepared, data_of, frozen, see, targets
from mmaib.explanations.reach import gradients
from mmaib.explanations.targets import Target
from mmaib.layers import capture_attention
from mmaib.visualization.work_dirs import read_records

# LayerCAM's map as a gate
START = 'bottleneck, no steps'
READOUT = 'readout'
# each costs 26 images a detection, D-RISE 400 more
SLOW = ('random', 'box', 'norm', 'grad-cam', 'd-rise')
SHUFFLED = (OWN, 'layer-cam', 'odam')
AT_BACKBONE = ('layer-cam', 'odam', OWN, START)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('config', nargs='?', type=Path)
    add('checkpoint', nargs='?', type=Path)
    add('--name', help='of the base model and data set')
    add('--seed', type=int, default=1)
    add('--records', type=Path)
    add('--detections', type=int, default=100)
    add('--per-image', type=int, default=2)
    add(
        '--d-rise-every', type=int, default=10,
        help='the weaker and the slow methods, and the detector run again,\n'
        'for every so manyth; 0: for none',
    )  # fmt: skip
    add(
        '--methods', nargs='+', default=[],
        help="some alone: odam, 'odam, backbone', ...",
    )  # fmt: skip
    add('--readout', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), type=Path)
    add('--judge', type=Path, help='checkpoint of judge.py, for CONFIG')
    add('--randomise', type=int, metavar='DETECTIONS')
    add('--table', type=Path, help='print of these records')
    add('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    for given in (args.records, args.table):
        if given and '#' in given.name:
            parser.error(f'{given}: detections have no sets, give a file')
    if not args.table and not (args.checkpoint and args.name and args.records):
        parser.error('give CONFIG CHECKPOINT --name --records, or --table')
    return args


def files_of(dataset: Any) -> list[str]:
    """Paths of a data set's images."""
    built = DATASETS.build(dataset)
    return [built.get_data_info(i)['img_path'] for i in range(len(built))]


def chosen(
    model: Any, place: Place, files: list[str], per_image: int
) -> Iterator[tuple[str, Prepared, list[Target], int]]:
    """Detections, in the order of the images: the file, what the model saw,
    all that it found there, and the number of the one."""
    for file in files:
        seen = see(model, place, data_of(model, file))
        try:
            found = targets(model, seen, score_thr=0.5, at_most=50)
        except ValueError:  # nothing found
            continue
        large = [i for i, t in enumerate(found) if area_of(t) >= 400]
        for number in large[:per_image]:
            yield file, seen, found, number


def area_of(target: Target) -> float:
    assert target.box is not None
    left, top, right, bottom = target.box.tolist()
    return max(right - left, 0) * max(bottom - top, 0)


def judged(
    model: Any,
    places: dict[str, Place],
    moments: dict[str, Any],
    seen: Prepared,
    found: list[Target],
    number: int,
    slow: bool,
    methods: Sequence[str] = (),
    judge: Any = None,
    readout: Any = None,
) -> dict[str, dict[str, float]]:
    """What the referee says of each method, on one detection."""
    target, images = found[number], seen.images
    size = tuple(images.shape[2:])
    own = box(target, size).bool()
    others = torch.stack(
        [box(t, size).bool() for i, t in enumerate(found) if i != number]
        or [torch.zeros_like(own)]
    ).any(0)
    features = {
        'neck': seen.features,
        'backbone': places['backbone'].features(images),
    }

    def explained(name: str, at: str) -> Tensor:
        given = target, places[at], features[at]
        if name in (OWN, START):
            settings = Settings() if name == OWN else Settings(steps=0)
            return per_sample_bottleneck(
                *given, images, moments[at], settings
            ).bits
        if name == READOUT:
            return map_of(readout, images) * (own + 1e-6)
        score = target.log_scores
        _, slope = gradients(score, places[at], features[at], images)
        return explain_by(name, *given, slope, images)

    neck = (*BASELINES, OWN, START, *[READOUT] * (readout is not None))
    rows = [(name, 'neck') for name in neck]
    rows += [(name, 'backbone') for name in AT_BACKBONE]
    scores = [of_images(target, places['neck'])]
    # after the score at the fixed box
    more = {'again': (model, places['neck'])} if slow else {}
    if judge is not None:
        more['judge'] = judge, Place(judge, 'neck')
    scores += [
        detected(*detector, target, seen.sample) for detector in more.values()
    ]
    blanked = blank(images, scores[0])
    results = {}
    orders = {}
    for name, at in rows:
        label = name if at == 'neck' else f'{name}, {at}'
        weak = name in SLOW or at == 'backbone'
        if not (label in methods if methods else slow or not weak):
            continue
        begun = time.perf_counter()
        order = orders[label] = explained(name, at).float().cpu()
        seconds = time.perf_counter() - begun
        curves = insertion_deletion(
            order, images, blanked, AREA * area_of(target), scores
        )
        result = dict(
            insertion=curves[0][0],
            deletion=curves[0][1],
            difference=curves[0][0] - curves[0][1],
            odi=discrimination(order, own, others),
            seconds=seconds,
            **location(order, own),
        )
        for name, (inserted, deleted) in zip(more, curves[1:]):
            result[f'difference_{name}'] = inserted - deleted
        results[label] = result
    # the bottleneck's gate, opened in each map's order
    given = target, places['neck'], seen.features, images, moments['neck']
    gate, openness = optimised(*given, Settings())
    kept = kept_at_equal_bits(
        gate, openness, seen.features, [*orders.values()]
    )
    for label, probability in zip(orders, kept):
        results[label]['kept'] = probability
    return {
        label: {name: round(value, 4) for name, value in result.items()}
        for label, result in results.items()
    }


def map_of(readout: Any, images: Tensor) -> Tensor:
    """The bits ``(H, W)`` that a readout's gates let through of each pixel."""
    with torch.no_grad(), capture_attention(readout) as maps:
        readout.extract_feat(images)
    size = tuple(images.shape[2:])
    levels = [
        spread(bits[0, 0].double(), size) for one in maps for bits in one.bits
    ]
    return torch.stack(levels).sum(0).float()


def shuffle_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Each tensor's values in another order, so that their scale stays."""
    for weights in module.parameters():
        values = weights.data.flatten()
        order = torch.randperm(len(values), generator=generator)
        weights.data = values[order].view_as(weights)


def stability(
    model: Any,
    place: Place,
    moments: Any,
    found: list[tuple[str, Prepared, Target]],
) -> list[dict[str, dict[str, float]]]:
    """For each detection, by method: rank correlations of its map with itself
    after another seed and after shuffled weights, which stay shuffled."""

    def map_of(name: str, seen: Prepared, target: Target, seed: int) -> Tensor:
        images = seen.images
        given = target, place, place.features(images)
        if name == OWN:
            settings = Settings(seed=seed)
            order = per_sample_bottleneck(
                *given, images, moments, settings
            ).bits
        else:
            _, slope = gradients(target.log_scores, place, given[2], images)
            order = explain_by(name, *given, slope, images)
        return order[in_box(target, order.shape)]

    def maps(seed: int = 0) -> dict[str, list[Tensor]]:
        return {
            name: [
                map_of(name, seen, target, seed) for _, seen, target in found
            ]
            for name in SHUFFLED
        }

    first = maps()
    changed = {'another seed': maps(seed=1)}
    generator = torch.Generator().manual_seed(0)
    head = model.roi_head if hasattr(model, 'roi_head') else model.bbox_head
    parts = {'head': head, 'neck': model.neck, 'backbone': model.backbone}
    for name, part in parts.items():
        shuffle_weights(part, generator)
        changed[f'{name} shuffled'] = maps()
    return [
        {
            method: {
                name: round(rank_correlation(own[i], other[method][i]), 4)
                for name, other in changed.items()
            }
            for method, own in first.items()
        }
        for i in range(len(found))
    ]


def in_box(target: Target, size: Sequence[int]) -> tuple[slice, slice]:
    """The box within an image of that size: outside of it any map is about
    zero, with whatever weights."""
    assert target.box is not None
    left, top, right, bottom = (round(v) for v in target.box.tolist())
    return (
        slice(max(0, top), min(size[0], bottom)),
        slice(max(0, left), min(size[1], right)),
    )


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    reuse_memory()
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, torch.device('cpu'))
    places = {name: Place(model, name) for name in ('neck', 'backbone')}
    of_run = dict(name=args.name, seed=args.seed)
    there = {
        (r['image'], r['detection'])
        for r in read_records(args.records)
        if of_run.items() <= r.items() and 'methods' in r
    }

    def keep(file: str, **found: Any) -> None:
        image = '/'.join(Path(file).parts[-2:])
        made = dict(device=device_name(), commit=commit(), image=image)
        record = {**of_run, **made, **found}
        with args.records.open('a') as lines:
            lines.write(json.dumps(record) + '\n')

    judge = readout = None
    if args.judge:
        judge = load_model(cfg, args.judge, torch.device('cpu'))
    if args.readout:
        readout = load_model(
            read_config(args.readout[0]),
            args.readout[1],
            torch.device('cpu'),
        )
    with frozen(model):
        training = [
            see(model, places['neck'], data_of(model, f)).images
            for f in files_of(cfg.train_dataloader.dataset)[:24]
        ]
        moments = {
            name: statistics(place, training) for name, place in places.items()
        }
        files = files_of(cfg.test_dataloader.dataset)
        every = chosen(model, places['neck'], files, args.per_image)
        if args.randomise:
            some = [
                (file, seen, found[number])
                for file, seen, found, number in islice(every, args.randomise)
            ]
            correlations = stability(
                model, places['neck'], moments['neck'], some
            )
            for (file, _, _), values in zip(some, correlations):
                keep(file, correlations=values)
            return
        for count, (file, seen, found, number) in enumerate(
            islice(every, args.detections)
        ):
            if ('/'.join(Path(file).parts[-2:]), number) in there:
                continue
            slow = args.d_rise_every and count % args.d_rise_every == 0
            target = found[number]
            keep(
                file,
                config=args.config.stem,
                detection=number,
                label=target.label,
                score=round(target.score, 4),
                area=round(area_of(target)),
                methods=judged(
                    model, places, moments, seen, found, number, bool(slow),
                    args.methods, judge, readout,
                ),
            )  # fmt: skip
            print(count + 1, file, number, flush=True)


def main() -> None:
    args = parse_args()
    if args.table:
        print(table(read_records(args.table)))
    else:
        run(args)


if __name__ == '__main__':
    main()
