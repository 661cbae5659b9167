"""Does a second stage on a trained classifier make its probabilities true?

    python tools/analysis_tools/calibration.py PLAIN STAGE2 --out DIR \\
        --seeds 1 2 3 4 5 6 7 8

trains PLAIN without every tenth image of its training set; then, from each
seed's checkpoint, STAGE2 (freeze_host='features') without noise, the fair
control, and with each of --kl-weights; as `tools/study.py` does, so that
running it again skips what is finished and resumes what was interrupted. A
temperature for PLAIN is fitted on the tenth that no arm was trained on.
--others names more configs, trained from the start.

All are measured on the test images and under shift: every --corruptions of
the package imagecorruptions in every --severities, the same images for all
arms and seeds, kept in DIR/images. With --ood the AUROC tells apart images of
a folder by the lack of confidence, the entropy and the mutual information.

DIR/calibration.md has the table, made of the records alone: means, paired
differences to plain, to temperature scaling and to the control, with
bootstrap intervals over seeds.
"""

import argparse
import inspect
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from torch import Tensor

from mmaib import compat
from mmaib.evaluation import CalibrationMetric, roc_auc, scoring_rules
from mmaib.evaluation.calibration import log_of
from mmaib.reliability.checkpoint import load_safely

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import study

EVERY = 10  # one training image of so many is held out
BINS, BATCH, RESAMPLES = 15, 100, 10_000
PLAIN, TEMPERATURE, CONTROL = 'plain', 'temperature', 'stage2-no-noise'
REFERENCES = {
    PLAIN: 'plain',
    TEMPERATURE: 'temperature scaling',
    CONTROL: 'stage two without noise',
}
MEASURED = ('ece', 'nll', 'accuracy', 'aurc')
UNCERTAINTIES = ('entropy', 'mutual_information')
Records = Mapping[str, Mapping[int, Mapping[str, float]]]  # arm, seed


class Arm(NamedTuple):
    """One row: a config, its options, and whether it starts from PLAIN."""

    name: str
    config: Path
    options: list[str]
    from_plain: bool = False
    draws: bool = False


class Images(NamedTuple):
    """A set of images ``(N, H, W, 3)``, uint8 RGB, and their labels."""

    pixels: np.ndarray
    labels: Tensor


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('plain', type=Path)
    parser.add_argument('stage2', type=Path)
    parser.add_argument('--others', nargs='+', type=Path, default=[])
    parser.add_argument(
        '--kl-weights', nargs='+', type=float, default=[0.1, 0.3, 1.0]
    )
    parser.add_argument(
        '--field',
        default='model.head.latent.beta',
        help='the weight in STAGE2; default: %(default)s',
    )
    parser.add_argument(
        '--draws', type=int, default=16, help='of the latent in a test'
    )
    parser.add_argument(
        '--corruptions',
        nargs='*',
        help="of imagecorruptions; by default its 15 'common' ones",
    )
    parser.add_argument('--severities', nargs='+', type=int, default=[1, 3, 5])
    parser.add_argument('--ood', type=Path, help='folder of images')
    parser.add_argument(
        '--max-images', type=int, help='test on about so many, evenly taken'
    )
    study.add_arguments_of_runs(parser)
    args = parser.parse_args()
    study.check_runs(parser, args)
    if min(args.kl_weights) <= 0 or len({*args.kl_weights}) < len(
        args.kl_weights
    ):
        parser.error(f'--kl-weights must be > 0, got {args.kl_weights}')
    if args.draws < 2:
        parser.error(f'--draws must be >= 2, got {args.draws}')
    if args.max_images is not None and args.max_images < 1:
        parser.error(f'--max-images must be >= 1, got {args.max_images}')
    if not args.report_only:
        args.corruptions = check_corruptions(parser, args.corruptions)
        check_stage2(parser, args)
    return args


def check_corruptions(
    parser: argparse.ArgumentParser, names: list[str] | None
) -> list[str]:
    """Those of the package that are asked for."""
    if names == []:
        return []
    try:
        from imagecorruptions import get_corruption_names
    except ImportError as error:
        parser.error(
            f'--corruptions needs imagecorruptions ({error}): pip install '
            'imagecorruptions, or --corruptions without a name for none'
        )
    known = [*get_corruption_names('common')]
    known_too = [*known, *get_corruption_names('validation')]
    if unknown := [name for name in names or () if name not in known_too]:
        parser.error(
            f'--corruptions {" ".join(unknown)}: choose from '
            f'{" ".join(known_too)}'
        )
    return names or known


def check_stage2(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    compat.register_config_sources()
    model = Config.fromfile(args.stage2).model
    if model.get('freeze_host') != 'features':
        parser.error(
            f"{args.stage2}: model.freeze_host must be 'features', got "
            f'{model.get("freeze_host")!r}'
        )


# Arms and their training
def arms(args: argparse.Namespace, configs: Mapping[Path, Path]) -> list[Arm]:
    """What is trained, PLAIN first."""
    own, stage2 = args.cfg_options, configs[args.stage2]
    without = ['model.train_draws=mean', f'{args.field}=0']
    return [
        Arm(PLAIN, configs[args.plain], own),
        *(Arm(path.stem, configs[path], own) for path in args.others),
        Arm(
            CONTROL,
            stage2,
            [*own, *without, 'model.test_draws=mean'],
            from_plain=True,
        ),
        *(
            Arm(
                f'stage2-kl-{weight:g}',
                stage2,
                [*own, f'{args.field}={weight:g}'],
                from_plain=True,
                draws=True,
            )
            for weight in args.kl_weights
        ),
    ]


def without_held_out(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Each config as a child that leaves out the training images on which
    the temperature is fitted."""
    folder.mkdir(parents=True, exist_ok=True)
    children = {}
    for path in paths:
        cfg = Config.fromfile(path)
        init_default_scope(cfg.default_scope)
        dataset = cfg.train_dataloader.dataset
        if 'dataset' in dataset or 'indices' in dataset:
            sys.exit(
                f'{path}: train_dataloader.dataset must be a data set itself '
                f'without indices, got {dataset.type}'
            )
        count = len(DATASETS.build(dataset))
        children[path] = folder / path.name
        children[path].write_text(
            f'_base_ = {str(path.resolve())!r}\n\n'
            'train_dataloader = dict(\n'
            f'    dataset=dict(indices=[i for i in range({count}) '
            f'if i % {EVERY}]))\n'
        )
    return children


def train(args: argparse.Namespace, every_arm: Sequence[Arm]) -> bool:
    """Every arm and seed, PLAIN before what starts from it; whether all are
    finished."""
    done = True
    for from_plain in (False, True):
        runs = [
            (
                arm.config,
                seed,
                args.out / arm.name / f'seed_{seed}',
                trained_with(args, arm, seed),
                arm.name,
            )
            for seed in args.seeds
            for arm in every_arm
            if arm.from_plain is from_plain and done
        ]
        done = done and study.train_all(runs, args.jobs, code=args.commit)
    return done


def trained_with(args: argparse.Namespace, arm: Arm, seed: int) -> list[str]:
    if not arm.from_plain:
        return arm.options
    start = study.checkpoint(args.out / PLAIN / f'seed_{seed}')
    return [*arm.options, f'load_from={start}']


# Images
def images_of(dataset_config: Any, bgr: bool, most: int | None) -> Images:
    """All images of a data set, as its pipeline gives them."""
    dataset = DATASETS.build(dataset_config)
    step = 1 if most is None else -(-len(dataset) // most)
    samples = [dataset[i] for i in range(0, len(dataset), step)]
    inputs = [sample['inputs'] for sample in samples]
    shapes = {tuple(image.shape) for image in inputs}
    if len(shapes) > 1 or inputs[0].dtype != torch.uint8:
        sys.exit(
            'the test pipeline must give uint8 images of one size, got '
            f'{inputs[0].dtype} of {sorted(shapes)[:3]}'
        )
    pixels = torch.stack(inputs).permute(0, 2, 3, 1).numpy()
    labels = torch.cat([s['data_samples'].gt_label for s in samples])
    return Images(pixels[..., ::-1] if bgr else pixels, labels)


def corrupted(
    pixels: np.ndarray, name: str, severity: int, folder: Path
) -> np.ndarray:
    """The same noise for an image whenever it is made; kept in the folder."""
    checksum = zlib.crc32(pixels.tobytes())
    path = folder / f'{name}-{severity}-{checksum:08x}.npy'
    if not path.exists():
        from imagecorruptions import corruption_dict

        corrupt = corruption_dict[name]
        takes_seed = 'seed' in inspect.signature(corrupt).parameters
        print('corrupt', path.stem, flush=True)
        made = []
        for i, image in enumerate(pixels):
            seed = zlib.crc32(f'{name}-{severity}-{i}'.encode())
            np.random.seed(seed)
            own = dict(seed=seed) if takes_seed else {}
            picture = Image.fromarray(np.ascontiguousarray(image))
            made.append(np.uint8(corrupt(picture, severity, **own)))
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix('.partial.npy')
        np.save(partial, np.stack(made))
        partial.rename(path)
    return np.load(path)


def folder_of_images(folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Images of a folder at one size, ``(N, H, W, 3)`` RGB."""
    paths = sorted(
        p for p in folder.glob('*') if p.suffix.lower() in ('.jpg', '.png')
    )
    if not paths:
        sys.exit(f'--ood {folder}: no .jpg or .png there')
    read = [mmcv.imread(str(path), channel_order='rgb') for path in paths]
    return np.stack([mmcv.imresize(image, size[::-1]) for image in read])


# Predictions and figures
class Predictor:
    """A trained arm.

    Args:
        cfg: of the arm, its options merged.
        checkpoint: of its run.
    """

    def __init__(self, cfg: Config, checkpoint: str) -> None:
        init_default_scope(cfg.default_scope)
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        self.bgr = bool(cfg.data_preprocessor.get('to_rgb', False))
        self.model = MODELS.build(cfg.model)
        load_checkpoint(self.model, checkpoint, map_location='cpu')
        self.model.to(get_device()).eval()

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> dict[str, Tensor]:
        """Log-probabilities ``(N, C)`` in double and, with draws, the
        uncertainties ``(N,)``."""
        if self.bgr:
            pixels = pixels[..., ::-1]
        inputs = torch.from_numpy(np.ascontiguousarray(pixels))
        samples: list[Any] = []
        for batch in inputs.permute(0, 3, 1, 2).split(BATCH):
            samples += self.model.test_step(dict(inputs=[*batch]))
        found = {'log_probs': log_of(stacked(samples, 'pred_score'))}
        for name in UNCERTAINTIES:
            if name in samples[0]:
                found[name] = stacked(samples, name).double()
        return found


def stacked(samples: Sequence[Any], name: str) -> Tensor:
    return torch.stack([sample.get(name) for sample in samples]).cpu()


def fitted_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The T that makes the NLL of softmax(log p / T) least, by golden
    section on 1 / T, in which it is convex."""

    def nll(inverse: float) -> float:
        return float(
            scoring_rules((log_probs * inverse).log_softmax(1), labels)[0]
        )

    low, high, ratio = 0.01, 20.0, (5**0.5 - 1) / 2
    for _ in range(60):
        left = high - ratio * (high - low)
        right = low + ratio * (high - low)
        if nll(left) < nll(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def figures(found: Mapping[str, Tensor], labels: Tensor) -> dict[str, float]:
    """Of predictions with labels, as mmaib.CalibrationMetric has them."""
    metric = CalibrationMetric(num_bins=BINS)
    named = {name: found[name] for name in UNCERTAINTIES if name in found}
    kept = metric.sums(found['log_probs'], labels, named)
    return metric.compute_metrics([kept])


def uncertainties(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The lack of confidence, '', and what the draws tell."""
    named = {name: found[name] for name in UNCERTAINTIES if name in found}
    return {'': 1 - found['log_probs'].max(1)[0].exp(), **named}


def told_apart(
    inside: Mapping[str, Tensor], outside: Mapping[str, Tensor]
) -> dict[str, float]:
    """AUROC of each uncertainty."""
    ours, theirs = uncertainties(inside), uncertainties(outside)
    result = {}
    for name, value in ours.items():
        scores = torch.cat([value, theirs[name]])
        result[f'ood/auroc_{name}'.rstrip('_')] = roc_auc(
            scores, torch.arange(len(scores)) >= len(value)
        )
    return result


class Sets:
    """The images that every arm is measured on, read once.

    Args:
        args: of the command.
        cfg: of PLAIN.
    """

    def __init__(self, args: argparse.Namespace, cfg: Config) -> None:
        init_default_scope(cfg.default_scope)
        bgr = bool(cfg.data_preprocessor.get('to_rgb', False))
        test = cfg.test_dataloader.dataset
        self.clean = images_of(test, bgr, args.max_images)
        train = {**cfg.train_dataloader.dataset, 'pipeline': test.pipeline}
        count = len(DATASETS.build(train))
        held_out = dict(train, indices=[*range(0, count, EVERY)])
        self.held_out = images_of(held_out, bgr, args.max_images)
        self.outside = None
        if args.ood:
            size = self.clean.pixels.shape[1:3]
            self.outside = folder_of_images(args.ood, size)
        self.shifts = [
            (name, severity)
            for name in args.corruptions
            for severity in args.severities
        ]
        self.folder = args.out / 'images'

    def predictions(self, predict: Predictor) -> dict[str, dict[str, Tensor]]:
        """Of the clean, the shifted, the held-out and the foreign images."""
        found = {'clean': predict(self.clean.pixels)}
        for name, severity in self.shifts:
            pixels = corrupted(self.clean.pixels, name, severity, self.folder)
            found[f'{name}-{severity}'] = predict(pixels)
        found['held out'] = predict(self.held_out.pixels)
        if self.outside is not None:
            found['outside'] = predict(self.outside)
        return found

    def measure(
        self, predictions: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, float]:
        """All figures, those under shift one by one and their mean."""
        result = {}
        shifted: dict[str, list[float]] = {}
        for name, found in predictions.items():
            if name in ('held out', 'outside'):
                continue
            own = figures(found, self.clean.labels)
            result.update({f'{name}/{k}': v for k, v in own.items()})
            if name != 'clean':
                severity = name.rpartition('-')[2]
                for k, v in own.items():
                    shifted.setdefault(f'shift/{k}', []).append(v)
                    shifted.setdefault(f'shift-{severity}/{k}', []).append(v)
        result.update({k: mean(v) for k, v in shifted.items()})
        if 'outside' in predictions:
            result.update(
                told_apart(predictions['clean'], predictions['outside'])
            )
        return result


def merged(config: Path, options: Sequence[str]) -> Config:
    """A config with options as the command line has them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction)
    cfg = Config.fromfile(config)
    if options:
        parsed = parser.parse_args(['--options', *options]).options
        cfg.merge_from_dict(parsed)
    return cfg


def measure_all(args: argparse.Namespace, every_arm: Sequence[Arm]) -> None:
    """The records of all finished runs that have none of this test yet."""
    settings = dict(
        corruptions=args.corruptions,
        severities=args.severities,
        draws=args.draws,
        ood=args.ood and str(args.ood),
        max_images=args.max_images,
    )
    sets: Sets | None = None
    for seed in args.seeds:
        for arm in every_arm:
            work_dir = args.out / arm.name / f'seed_{seed}'
            names = [arm.name, *([TEMPERATURE] if arm.name == PLAIN else [])]
            paths = [record_path(args.out, name, seed) for name in names]
            if all(is_of(path, settings) for path in paths):
                for name, path in zip(names, paths):
                    keep(path, args.records, name, seed)
                continue
            sets = sets or Sets(args, Config.fromfile(args.plain))
            print('measure', work_dir, flush=True)
            draws = f'model.test_draws.latent={args.draws}'
            options = [*arm.options, *([draws] if arm.draws else [])]
            cfg = merged(arm.config, options)
            predict = Predictor(cfg, study.checkpoint(work_dir))
            predictions = sets.predictions(predict)
            of_run = json.loads((work_dir / 'record.json').read_text())
            for name, path in zip(names, paths):
                metrics: dict[str, float] = {}
                if name == TEMPERATURE:
                    held_out = predictions['held out']
                    t = fitted_temperature(
                        held_out['log_probs'], sets.held_out.labels
                    )
                    metrics['temperature'] = t
                    predictions = at_temperature(predictions, t)
                metrics.update(sets.measure(predictions))
                record = dict(
                    of_run, arm=name, settings=settings, metrics=metrics
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record, indent=1) + '\n')
                keep(path, args.records, name, seed)


def at_temperature(
    predictions: Mapping[str, Mapping[str, Tensor]], t: float
) -> dict[str, dict[str, Tensor]]:
    return {
        name: {'log_probs': (found['log_probs'] / t).log_softmax(1)}
        for name, found in predictions.items()
    }


def record_path(out: Path, name: str, seed: int) -> Path:
    return out / name / f'seed_{seed}' / 'calibration.json'


def is_of(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a record is there, of a test like this one."""
    if not path.exists():
        return False
    return json.loads(path.read_text())['settings'] == settings


def keep(path: Path, records: Path | None, name: str, seed: int) -> None:
    if records:
        records.mkdir(parents=True, exist_ok=True)
        copy = records / f'{name}.seed_{seed}.json'
        copy.write_text(path.read_text())


# The table
def read_records(args: argparse.Namespace) -> Records:
    """The figures of every arm and seed, of the runs or of the records."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    weights = [f'stage2-kl-{weight:g}' for weight in args.kl_weights]
    others = [path.stem for path in args.others]
    for name in [*REFERENCES, *weights, *others]:
        found[name] = {}
        for seed in args.seeds:
            paths = [record_path(args.out, name, seed)]
            if args.records:
                paths.append(args.records / f'{name}.seed_{seed}.json')
            for path in paths:
                if path.exists():
                    record = json.loads(path.read_text())
                    found[name][seed] = record['metrics']
                    break
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean lies in 95 of 100 resamples of the seeds."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)


def difference(values: Sequence[float]) -> str:
    """A paired difference, its interval, and a star if that is off zero."""
    if len(values) < 2:
        return f'{mean(values):+.4f}' if values else 'not run'
    low, high = interval(values)
    star = ' *' if low > 0 or high < 0 else ''
    return f'{mean(values):+.4f} [{low:+.4f}, {high:+.4f}]{star}'


def columns(records: Records) -> dict[str, str]:
    """Titles of the metrics that some run has."""
    there = {
        k for runs in records.values() for run in runs.values() for k in run
    }
    titles = {
        f'{where}/{name}': f'{name.upper() if name != "accuracy" else name}'
        f'{"" if where == "clean" else ", shift"}'
        for where in ('clean', 'shift')
        for name in MEASURED
    }
    titles['ood/auroc'] = 'AUROC, OOD'
    return {name: title for name, title in titles.items() if name in there}


def rows(
    records: Records, titles: Mapping[str, str], cell: Callable[..., str]
) -> list[str]:
    """A table; ``cell`` is given an arm's runs and a metric."""
    head = ['arm', 'seeds', *titles.values()]
    lines = [head, ['---'] * len(head)]
    for arm, runs in records.items():
        seeds = ', '.join(map(str, runs)) or 'not run'
        cells = [cell(runs, name) for name in titles]
        lines.append([REFERENCES.get(arm, arm), seeds, *cells])
    return study.markdown(lines)


def table(records: Records) -> str:
    """In Markdown: means, then paired differences to each reference."""
    titles = columns(records)

    def of_runs(runs: Mapping[int, Mapping[str, float]], name: str) -> str:
        return study.cell([run[name] for run in runs.values() if name in run])

    lines = rows(records, titles, of_runs)
    for reference, title in REFERENCES.items():
        base = records[reference]

        def paired(
            runs: Mapping[int, Mapping[str, float]],
            name: str,
            base: Mapping[int, Mapping[str, float]] = base,
        ) -> str:
            return difference(
                [
                    run[name] - base[seed][name]
                    for seed, run in runs.items()
                    if name in run and name in base.get(seed, {})
                ]
            )

        others = {k: v for k, v in records.items() if k != reference}
        lines += ['', f'Paired differences to {title}:', '']
        lines += rows(others, titles, paired)
    severities = sorted(
        {
            name.partition('/')[0]
            for runs in records.values()
            for run in runs.values()
            for name in run
            if name.startswith('shift-')
        }
    )
    by_severity = {
        f'{where}/{name}': f'{name.upper()}, severity {where[6:]}'
        for name in ('ece', 'nll')
        for where in severities
    }
    if severities:
        lines += ['', 'By severity:', '', *rows(records, by_severity, of_runs)]
    command = ' '.join(['python', *sys.argv])
    return '\n'.join(
        [
            *lines,
            '',
            'Mean ± standard deviation over seeds; shift: mean over '
            'corruptions and severities. Differences: mean and 95 % bootstrap '
            'interval over seeds, * if it is off zero. Command: '
            f'`{command}`',
            '',
        ]
    )


def main() -> None:
    args = parse_args()
    done = True
    if not args.report_only:
        load_safely()
        configs = [args.plain, *args.others, args.stage2]
        every_arm = arms(args, without_held_out(configs, args.out / 'configs'))
        done = train(args, every_arm)
        if done:
            measure_all(args, every_arm)
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(read_records(args))
    (args.out / 'calibration.md').write_text(text)
    print(text)
    if not done:
        sys.exit('some runs failed: see above')


if __name__ == '__main__':
    main()
