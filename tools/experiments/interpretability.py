"""The interpretability scores of Section 4.3 of [AIB], Table 8, and what they
do not explain.

    python tools/experiments/interpretability.py WORK_DIR... --out DIR \\
        --patches IMAGES_OF_ANOTHER_DATA_SET

takes the last checkpoint of each WORK_DIR, or CONFIG=CHECKPOINT, to the test
images of its config, their modifications and its maps. `--patches` is a folder
or SVHN's test_32x32.mat. DIR gets interpretability.md, in which every
number has an interval of 95 %, a bootstrap over images.

The score is the share of images whose map stays (cosine above tau) when the
image is modified, among those whose answer stays: the class; of a segmentor a
mean IoU of 0.5; of a detector the set of classes, and half of the boxes,
matched at IoU 0.5. A uniform map has 100 %. So the table has such a map as
its last row, and beside the score the cosine of the maps less their means,
the deviation within an image, and what the base model's metric loses with
every map mirrored, flattened, shuffled.

    python tools/experiments/interpretability.py WORK_DIR... --out DIR \\
        --pictures corrected --max-images 16

draws classifiers' maps instead, a row a model below the image: of images
that the first model gets wrong and the last one right (Fig. 7), of
`modified` ones (Fig. 11), or `transformed` step by step (Fig. 8 of [RECT]).
"""

import argparse
import copy
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from map_stability import (
    TAUS,
    Comparison,
    Estimate,
    compare_modified,
    share,
    summary,
)
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner
from modifications import BLOCKS, HIGH, LOW, modified
from scipy.io import loadmat
from study import conclude
from torch import Tensor

from mmaib.cli.launch import device_argument
from mmaib.cli.loading import load_model, read_config
from mmaib.cli.visualize import unused
from mmaib.evaluation.ablation import ablation_metrics, evaluate
from mmaib.evaluation.map_geometry import mean_over_levels
from mmaib.functional import warp_images
from mmaib.layers import AttentiveBottleneck, capture_attention
from mmaib.layers.map_changes import MAP_CHANGES
from mmaib.visualization.image_sources import images, of_test_set
from mmaib.visualization.overlays import classifier_input, outlined, overlay
from mmaib.visualization.tables import METRICS, markdown
from mmaib.visualization.work_dirs import last_checkpoint

PATCH_SIDE = 32
TAU = 0.9  # of Table 8's layout
UNIFORM = 'a uniform map'


class Result(NamedTuple):
    """What a model's maps did.

    Attributes:
        comparisons: of each image, by modification.
        deviation: of the maps within their images; empty without a map.
        metric: of the base library, its name and value.
        lost: of it, by change of the maps.
    """

    comparisons: list[dict[str, Comparison]]
    deviation: list[float]
    metric: tuple[str, float] | None
    lost: dict[str, float]


def model_argument(text: str) -> tuple[Path, Path]:
    """Config and checkpoint of a work dir, or of CONFIG=CHECKPOINT."""
    config, _, checkpoint = text.partition('=')
    if checkpoint:
        found = Path(config), Path(checkpoint)
    else:
        folder = Path(text)
        configs, last = [*folder.glob('*.py')], folder / 'last_checkpoint'
        if len(configs) != 1 or not last.exists():
            raise argparse.ArgumentTypeError(
                f'{text}: neither a work dir with a config and a checkpoint '
                'nor CONFIG=CHECKPOINT'
            )
        found = configs[0], last_checkpoint(folder)
    for path in found:
        if not path.is_file():
            raise argparse.ArgumentTypeError(f'{text}: no file {path}')
    return found


def read_patches(source: Path | None) -> list[Tensor]:
    """Images, small, in the order of channels that the base libraries load
    files in, BGR: all of SVHN's file, a hundred of a folder, drawn at
    random."""
    if source is None:
        return []
    if source.suffix == '.mat':
        pixels = torch.from_numpy(loadmat(str(source))['X'])
        return [*pixels.permute(3, 2, 0, 1).flip(1)]
    paths = images(source)
    paths = random.Random(0).sample(paths, min(len(paths), 100))
    size = (PATCH_SIDE, PATCH_SIDE)
    read = (mmcv.imread(str(path)) for path in paths)
    return [
        torch.from_numpy(mmcv.imresize(image, size)).permute(2, 0, 1)
        for image in read
    ]


def measure(
    cfg: Config,
    checkpoint: Path,
    patches: Sequence[Tensor],
    args: argparse.Namespace,
) -> Result:
    """The scores of one model over the first test images."""
    model = load_model(cfg, checkpoint, args.device)
    count, found = of_test_set(cfg)
    comparisons, deviations = [], []
    for number, (_, data) in zip(range(args.max_images or count), found):
        if number == 0 and 'img_path' not in data['data_samples']:
            patches = [p.flip(0) for p in patches]  # arrays are RGB
        rows, deviation = compare_modified(
            model, data, number, patches, args.score_thr
        )
        comparisons.append(rows)
        if deviation is not None:
            deviations.append(deviation)
    metric, lost = lost_metric(cfg, model) if args.ablations else (None, {})
    return Result(comparisons, deviations, metric, lost)


def evaluation(cfg: Config) -> tuple[Any, Evaluator]:
    """The test dataloader, in this process alone, and its evaluator."""
    loader = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    dataloader = Runner.build_dataloader(loader)
    metrics = cfg.test_evaluator
    if 'metrics' in metrics:  # as the Runner does
        evaluator = EVALUATOR.build({'type': 'Evaluator', **metrics})
    else:
        evaluator = Evaluator(metrics)
    evaluator.dataset_meta = dataloader.dataset.metainfo
    return dataloader, evaluator


def lost_metric(
    cfg: Config, model: Any
) -> tuple[tuple[str, float] | None, dict[str, float]]:
    """The base model's metric on all test images, and what it loses; nothing
    without a map."""
    if not any(isinstance(m, AttentiveBottleneck) for m in model.modules()):
        return None, {}
    dataloader, evaluator = evaluation(cfg)
    found = evaluate(model, dataloader, evaluator)
    name = next((m for m in METRICS if m in found), None)
    if name is None:
        return None, {}
    changed = ablation_metrics(model, dataloader, evaluator)
    lost = {c: found[name] - changed[f'{c}/{name}'] for c in MAP_CHANGES}
    return (name, found[name]), lost


def variants(
    kind: str, image: Tensor, number: int, patches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """An image and its copies in a picture, by their titles."""
    if kind == 'modified':
        generator = torch.Generator().manual_seed(number)
        found = modified(image, generator, patches)
        names = ('color p=8', 'patch p=8', f'r > {HIGH}', f'r < {LOW}')
        return {'': image, **{n: found[n] for n in names if n in found}}
    if kind == 'corrected':
        return {'': image}
    # turned by up to 45 degrees, enlarged by up to a quarter, and moved
    last = torch.tensor([math.pi / 4, 0.25, 0.15, 0.15])
    warps = torch.linspace(0, 1, 7)[:, None] * last
    warps[:, 1] += 1
    copies = warp_images(image.float().expand(7, -1, -1, -1), warps)
    return {str(i): x.round().to(image) for i, x in enumerate(copies)}


@torch.no_grad()
def overlays(
    model: Any, data: dict, copies: Mapping[str, Tensor]
) -> tuple[list[np.ndarray], list[np.ndarray], bool]:
    """What a classifier saw of an image's copies, its maps over them, and
    whether its answer to the first is right."""
    sample = data['data_samples']
    batch = dict(
        inputs=[*copies.values()],
        data_samples=[copy.deepcopy(sample) for _ in copies],
    )
    with capture_attention(model) as maps:
        answers = model.test_step(batch)
    seen, shown = [], []
    for i, (image, answer) in enumerate(zip(copies.values(), answers)):
        pixels, answer = classifier_input(model, [image], answer.cpu())
        attention = mean_over_levels(maps, i, answer.metainfo).numpy()
        mixed = overlay(pixels, attention)
        seen.append(pixels)
        shown.append(outlined(mixed, maps, i, answer.metainfo))
    right = int(answers[0].pred_label) == int(sample.gt_label)
    return seen, shown, right


def grid(
    rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = ()
) -> Figure:
    """Images in rows, by the rows' labels."""
    count = max(map(len, rows.values()))
    size = (1.5 * count, 1.6 * len(rows))
    figure = Figure(size, 150, layout='constrained')
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (label, shown) in zip(axes, rows.items()):
        for axis, image in zip(line, shown):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=6)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=6)
    return figure


def draw(
    models: Mapping[str, tuple[Config, Path]],
    patches: Sequence[Tensor],
    args: argparse.Namespace,
) -> None:
    """Pictures of the first images, or of the first that are corrected."""
    loaded = {
        label: load_model(cfg, checkpoint, args.device)
        for label, (cfg, checkpoint) in models.items()
    }
    (cfg, _), *_ = models.values()
    args.out.mkdir(parents=True, exist_ok=True)
    made = 0
    for number, (_, data) in enumerate(of_test_set(cfg)[1]):
        if number == 0 and 'img_path' not in data['data_samples']:
            patches = [p.flip(0) for p in patches]  # arrays are RGB
        copies = variants(args.pictures, data['inputs'], number, patches)
        found = {k: overlays(m, data, copies) for k, m in loaded.items()}
        rights = [right for *_, right in found.values()]
        if args.pictures == 'corrected' and (rights[0] or not rights[-1]):
            continue
        (seen, _, _), *_ = found.values()
        rows = {'': seen}
        rows |= {k.replace('_', '\n', 1): s for k, (_, s, _) in found.items()}
        grid(rows, [*copies]).savefig(args.out / f'{number:05d}.png')
        made += 1
        if made == args.max_images:
            break
    print(f'{made} pictures in {args.out}')


def uniform(result: Result) -> Result:
    """The same images and answers, with a map that is the same everywhere."""
    return Result(
        [
            {n: r._replace(cosine=1.0, centred=0.0) for n, r in rows.items()}
            for rows in result.comparisons
        ],
        [0.0] * len(result.comparisons),
        result.metric,
        dict.fromkeys(result.lost, 0.0),
    )


Summaries = dict[str, dict[str, Estimate]]  # by modification, by score


def summaries_of(result: Result) -> Summaries:
    """Scores after each modification and, as ``'all'``, of all together."""
    names = result.comparisons[0]
    found = {n: summary([[c[n]] for c in result.comparisons]) for n in names}
    found['all'] = summary([[*c.values()] for c in result.comparisons])
    if result.deviation:
        kept = [True] * len(result.deviation)
        found['all']['deviation'] = share(result.deviation, kept)
    return found


def cell(estimate: Estimate, scale: float = 100, digits: int = 1) -> str:
    """Value and interval."""
    if estimate.value is None:
        return '-'
    value, low, high = (x * scale for x in estimate[:3])  # type: ignore[operator]
    return f'{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]'


def table8(summaries: Mapping[str, Summaries]) -> list[list[str]]:
    """The paper's layout: a row of colour blocks and high frequencies, one of
    patches and low frequencies."""
    head = ['Model', 'Spatial', *(f'p={p}' for p in BLOCKS)]
    rows = [[*head, 'Frequency', 'score']]
    for label, found in summaries.items():
        for spatial, frequency in (
            ('color', f'r > {HIGH}'),
            ('patch', f'r < {LOW}'),
        ):
            names = [*(f'{spatial} p={p}' for p in BLOCKS), frequency]
            cells = [
                'no map'
                if 'deviation' not in found['all']
                else cell(found[name][f'score {TAU}'])
                if name in found
                else '-'
                for name in names
            ]
            rows.append([label, spatial, *cells[:-1], frequency, cells[-1]])
    return rows


def beside(
    results: Mapping[str, Result], summaries: Mapping[str, Summaries]
) -> list[list[str]]:
    """What the score does not explain, over all modifications together."""
    metrics = {r.metric[0] for r in results.values() if r.metric}
    of = f' of {min(metrics)}' if len(metrics) == 1 else ''
    head = ['Model', 'images', 'same answer']
    head += [f'score, tau={tau}' for tau in TAUS]
    head += ['centred cosine', 'deviation within an image']
    head += [f'lost{of} by {change}' for change in MAP_CHANGES]
    rows = [[*head, 'comparisons whose answer stayed']]
    for label, result in results.items():
        found = summaries[label]['all']
        row = [label, str(len(result.comparisons)), cell(found['same answer'])]
        row += [cell(found[f'score {tau}']) for tau in TAUS]
        row.append(cell(found['centred'], 1, 3))
        no_map = 'deviation' not in found
        row.append('no map' if no_map else cell(found['deviation'], 1, 3))
        row += [
            f'{result.lost[c]:.4f}' if result.lost else '-'
            for c in MAP_CHANGES
        ]
        row.append('-' if no_map else str(found['centred'].number))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        'models', nargs='+', type=model_argument, metavar='MODEL',
        help='a work dir, or CONFIG=CHECKPOINT',
    )  # fmt: skip
    add('--out', type=Path, required=True)
    add('--patches', type=Path, help='a folder, or .mat; default: no patches')
    add('--max-images', type=int, help='default: all')
    add('--pictures', choices=('corrected', 'modified', 'transformed'))
    add('--score-thr', type=float, default=0.3)
    add(
        '--ablations', action=argparse.BooleanOptionalAction, default=True,
        help="four evaluations of the test images, for the base metric\n"
        'with changed maps',
    )  # fmt: skip
    add('--device', type=device_argument, default=get_device())
    args = parser.parse_args()
    if args.max_images is not None and args.max_images < 1:
        parser.error(f'--max-images must be >= 1, got {args.max_images}')
    try:
        patches = read_patches(args.patches)
    except FileNotFoundError as error:
        sys.exit(str(error))
    models: dict[str, tuple[Config, Path]] = {}
    for config, checkpoint in args.models:
        label = config.stem
        if label in models:
            label = f'{label}, {checkpoint.parent.name}, {checkpoint.stem}'
        models[unused(label, models)] = read_config(config), checkpoint
    if args.pictures:
        draw(models, patches, args)
        return
    results: dict[str, Result] = {}
    for label, (cfg, checkpoint) in models.items():
        print(label, flush=True)
        results[label] = measure(cfg, checkpoint, patches, args)
    first = next((r for r in results.values() if r.deviation), None)
    if first:
        results[UNIFORM] = uniform(first)
    summaries = {label: summaries_of(r) for label, r in results.items()}
    tables = [table8(summaries), beside(results, summaries)]
    conclude(
        args.out / 'interpretability.md',
        [*markdown(tables[0]), '', *markdown(tables[1])],
        'Scores in % [95 % interval, bootstrap over images]; in the first '
        f'table tau={TAU}. A uniform map has the best score there is: read '
        'the centred cosine, the deviation and what is lost first.',
    )


if __name__ == '__main__':
    main()
