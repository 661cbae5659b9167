"""Time mmaib's models against the base model, interleaved in one process.

    python tools/benchmark.py --out work_dirs/benchmark.md

Each round times every variant once, so that the machine's drift falls on all
of them; a figure is the median over rounds of the ratio to the base model's
time in the same round. The method and the gate start from the base model's
weights; the gate, shut as it starts, sees the base model's proposals, the
method about as many. MACs are counted on a real `predict`, with all draws, or
on the forward pass of a training step. The tables: Faster R-CNN R50 (one
800x1344 image) beside others' attentions after the same neck, UPerNet
BEiT-base (512x512, training on two), operators of attentions, exponents
by which parts grow, `nearest_anchor` against a table of Q distances, and what
uncertainty over draws of the latent costs either model in time and memory.

With random weights no RoI has a score above 0.05; in the rows `kept` as many
pass as the row says, the most that mmdet keeps.

With `--device cuda` the tables also give the peak of the GPU's memory during
a call, without the weights.
"""

import argparse
import copy
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from runpy import run_path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmaib.cli.launch import device_argument
from mmaib.cli.main import reuse_memory
from mmaib.compat import register_config_sources, report
from mmaib.cost import (
    gmacs,
    interleaved,
    millions,
    operators,
    peak_mib,
)
from mmaib.functional import nearest_anchor
from mmaib.losses import collect
from mmaib.models import AIBNeck
from mmaib.sampling import Draws
from mmaib.visualization.tables import markdown

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
COCO = CONFIGS / 'detection' / 'faster_rcnn'
UPERNET = CONFIGS / 'segmentation' / 'upernet'
BEIT = 'beit-base_upernet_8xb2-160k_ade20k-512x512.py'
PLAIN = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
DETECTOR = COCO / 'aib-qt_faster-rcnn_r50_fpn_1x_coco.py'
LATENTS = (4, 8, 16)
NORM = dict(logit_norm=True)
ANCHORS = dict(num_anchors=20)
BOTTLENECKS: dict[str, dict] = {
    'aib-literal': dict(),
    'aib': dict(attention=NORM),
    'aib-qt': dict(attention=NORM, quantizer=ANCHORS),
    'gate': dict(modulation=dict(type='mmaib.InformationGate')),
}
KEPT = 100  # max_per_img of 1000 RoIs
# in `experiments/peers`, or mmcv's
PEERS: dict[str, dict] = {
    "mmcv's ContextBlock": dict(type='ContextBlock', ratio=1 / 16),
    "mmcv's GeneralizedAttention 0010": dict(type='KeyContentAttention'),
    "CBAM's spatial half": dict(type='CBAM', channels=False),
    'SE': dict(type='SE'),
}
Rows = list[list[str]]  # of a table, its head first


def timed(
    calls: Mapping[str, Callable[[], Any]],
    args: argparse.Namespace,
    rounds: int = 0,
) -> dict[str, tuple[float, float]]:
    """For each call the median over rounds of its time's ratio to the first
    one's, and the median of its seconds."""
    times = interleaved(calls, max(args.rounds, rounds), args.device)
    base = next(iter(times.values()))
    return {
        name: (median(a / b for a, b in zip(own, base)), median(own))
        for name, own in times.items()
    }


def predict(model: Any, data: dict, test_draws: Any = 'mean') -> None:
    if hasattr(model, 'test_draws'):
        model.test_draws = test_draws
    model.eval()
    with torch.no_grad():
        model.test_step(data)


def forward(model: Any, data: dict) -> Tensor:
    """The total loss of a training step."""
    model.train()
    batch = model.data_preprocessor(data, training=True)
    return model.parse_losses(model(**batch, mode='loss'))[0]


def train(model: Any, data: dict) -> None:
    loss = forward(model, data)
    model.zero_grad(set_to_none=True)
    loss.backward()


class Variant(NamedTuple):
    """A row of a table: what is timed, and whose MACs are counted."""

    model: Any
    timed: Callable[[], Any]
    counted: Callable[[], Any]


def build(cfg: Config) -> Any:
    """The config's model, initialised, without SyncBN."""
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return revert_sync_batchnorm(model)


def segmentor_config(name: str, size: Sequence[int]) -> Config:
    """An UPerNet BEiT without weights, for images of that size."""
    cfg = Config.fromfile(UPERNET / f'{name}{BEIT}')
    cfg.model.pretrained = None
    cfg.model.backbone.img_size = size
    cfg.model.data_preprocessor.update(size=size, test_cfg=dict(size=size))
    cfg.model.test_cfg = dict(mode='whole')
    return cfg


def segmentor_inputs(size: Sequence[int], count: int) -> dict:
    """Random images with random labels."""
    from mmseg.structures import SegDataSample

    shape = dict(img_shape=size, ori_shape=size, pad_shape=size)
    labels = [torch.randint(0, 150, (1, *size)) for _ in range(count)]
    return dict(
        inputs=[
            torch.randint(0, 256, (3, *size), dtype=torch.uint8)
            for _ in range(count)
        ],
        data_samples=[
            SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=shape)
            for one in labels
        ],
    )


def inference(
    model: Any, data: dict, count: int | None = None, rois: str | None = None
) -> Variant:
    draws = dict(attention=count, latent=1, rois=rois) if count else 'mean'
    call = partial(predict, model, data, draws)
    return Variant(model, call, call)


def training(model: Any, data: dict) -> Variant:
    return Variant(
        model, partial(train, model, data), partial(forward, model, data)
    )


def cost_table(
    groups: Sequence[Mapping[str, Variant]], args: argparse.Namespace
) -> Rows:
    """Rows for each group, whose first variant is the base model."""
    on_gpu = args.device.type == 'cuda'
    head = ['variant', 'time / base model', 'median s', 'GMACs', 'operators']
    rows = [[*head, 'M parameters', *(['peak MiB'] if on_gpu else [])]]
    for variants in groups:
        base, *others = variants
        named = [base, *filter(re.compile(args.rows).search, others)]
        if args.rows and not named[1:]:
            continue
        variants = {name: variants[name] for name in named}
        times = timed({k: v.timed for k, v in variants.items()}, args)
        for name, (slower, seconds) in times.items():
            model, call, counted = variants[name]
            counts: list[int] = []
            macs = gmacs(lambda: counts.append(operators(counted)))  # noqa: B023
            row = [name, f'{slower:.3f}', f'{seconds:.{4 if on_gpu else 2}f}']
            row += [f'{macs:.1f}', *map(str, counts)]
            row.append(f'{millions(model):.2f}')
            if on_gpu:
                model.zero_grad(set_to_none=True)
                row.append(peak_mib(call, args.device))
            rows.append(row)
    return rows


def detector_inputs(size: Sequence[int]) -> dict:
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(1, [[3, *size]], num_items=[8], num_classes=80)


def keep(model: Any, data: dict, count: int) -> Any:
    """A copy that keeps so many RoIs at the mean."""
    model, logits = copy.deepcopy(model), []
    with model.roi_head.bbox_head.register_forward_hook(
        lambda _, __, out: logits.append(out[0])
    ):
        predict(model, data)
    scores = logits[0].softmax(1)[:, :-1].amax(1).sort().values
    cfg = model.roi_head.test_cfg
    cfg.update(score_thr=scores[-count - 1 :][0].item(), max_per_img=1000)
    cfg.nms.iou_threshold = 1.0
    return model


def with_part(part: dict) -> Config:
    """The base model's config with a part after its neck."""
    cfg = get_config(PLAIN)
    cfg.model.neck.update(type='FPNWithPart', part=part)
    return cfg


def detector_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """The base model, the method, the gate and others' attentions with its
    weights."""
    # which registers them
    run_path(str(Path(__file__).with_name('experiments') / 'peers.py'))

    cfgs = {
        'base model': get_config(PLAIN),
        'ours': Config.fromfile(DETECTOR),
        'gate': Config.fromfile(COCO / 'gate_faster-rcnn_r50_fpn_1x_coco.py'),
        **{name: with_part(part) for name, part in PEERS.items()},
    }
    for cfg in cfgs.values():
        cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)  # of the weights hangs how many proposals there are
    models = {k: build(cfg).to(args.device) for k, cfg in cfgs.items()}
    base_model, ours, gate, *_ = models.values()
    for model in models.values():
        model.load_state_dict(base_model.state_dict(), strict=False)
    # as open as at the start, or the base model would see other proposals
    gate.neck.bottleneck.modulation.strength.zero_()
    data = detector_inputs(args.size)
    few = keep(ours, data, KEPT)
    predictions = {
        'base model': inference(base_model, data),
        'ours, mean': inference(ours, data),
        'ours, L_a = 1': inference(ours, data, 1),
        'ours, L_a = 2': inference(ours, data, 2),
        'ours, L_a = 4': inference(ours, data, 4),
        'ours, L_a = 8': inference(ours, data, 8),
        f'ours, L_a = 4, {KEPT} RoIs kept': inference(few, data, 4, 'kept'),
        f'ours, L_a = 8, {KEPT} RoIs kept': inference(few, data, 8, 'kept'),
        'gate, mean': inference(gate, data),
        **{name: inference(models[name], data) for name in PEERS},
    }
    steps = {
        f'{name}, training step': training(model, data)
        for name, model in models.items()
    }
    height, width = args.size
    title = f'{DETECTOR.stem}, one {height}x{width} image:'
    return title, cost_table([predictions, steps], args)


def segmentor_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """The base model, and both forms of the std with the base model's
    weights."""
    plain, paper, cheap = (
        segmentor_config(name, args.seg_size)
        for name in ('', 'aib-qt_', 'aib-qt_')
    )
    cheap.model.decode_head.latent.std_source = 'mean'
    torch.manual_seed(0)
    base_model, paper, cheap = (
        build(cfg).to(args.device) for cfg in (plain, paper, cheap)
    )
    for ours in (paper, cheap):
        ours.load_state_dict(base_model.state_dict(), strict=False)
    one, two = (segmentor_inputs(args.seg_size, count) for count in (1, 2))
    predictions = {
        'base model': inference(base_model, one),
        'ours, mean': inference(paper, one),
        'ours, L_a = 1, std 3x3': inference(paper, one, 1),
        'ours, L_a = 1, std 1x1': inference(cheap, one, 1),
        'ours, L_a = 2, std 3x3': inference(paper, one, 2),
        'ours, L_a = 2, std 1x1': inference(cheap, one, 2),
    }
    steps = {
        'base model, training step': training(base_model, two),
        'ours, training step, std 3x3': training(paper, two),
        'ours, training step, std 1x1': training(cheap, two),
    }
    height, width = args.seg_size
    title = (
        f'aib-qt_{Path(BEIT).stem} at {height}x{width}, one image, two in '
        'training; GMACs of the forward pass:'
    )
    return title, cost_table([predictions, steps], args)


def pyramid_operators(bottleneck: dict, size: Sequence[int]) -> list[int]:
    """Operators of an AIBNeck after five levels, on a GPU that is not there:
    at the mean, of four maps, of a training step's forward without and with
    monitors."""
    found = []
    with FakeTensorMode():
        with torch.device('cuda'):
            neck = AIBNeck(dict(bottleneck), in_channels=[256] * 5)
            x = [
                torch.empty(2, 256, *(ceil(side / stride) for side in size))
                for stride in (4, 8, 16, 32, 64)
            ]

        def step(monitors: bool) -> None:
            with collect(monitors) as aux:
                neck(x)
                aux.mean()

        neck.eval()
        for count in (None, 4):
            with torch.no_grad(), Draws(attention=count).open('cuda'):
                found.append(operators(lambda: neck(x)))
        neck.train()
        with Draws(attention=1).open('cuda'):
            found += [operators(partial(step, on)) for on in (False, True)]
    return found


def operator_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """Counted operators of the attentions, without their base neck."""
    rows = [['operators', 'mean', 'L_a = 4', 'training', 'with monitors']]
    for name, bottleneck in BOTTLENECKS.items():
        found = pyramid_operators(bottleneck, args.size)
        rows.append([name, *map(str, found)])
    return "Operators of a pyramid's attention:", rows


def growth_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """The time of parts over what it grows with, and the exponent of that
    growth, the slope of the logarithms by least squares."""
    from mmaib.models.detection.aib_roi_head import FeatureDraws

    device, (height, width) = args.device, args.size
    neck = AIBNeck(dict(quantizer=ANCHORS), in_channels=[256] * 5)
    neck = neck.to(device).eval()

    def levels(share: float) -> list[Tensor]:
        """Features of an image of that share of the area."""
        size = [side * share**0.5 for side in (height, width)]
        return [
            torch.randn(1, 256, *(ceil(side / stride) for side in size)).to(
                device
            )
            for stride in (4, 8, 16, 32, 64)
        ]

    @torch.no_grad()
    def under(draws: Draws, call: Callable, *inputs: Any) -> None:
        with draws.open(device):
            call(*inputs)

    cfg = Config.fromfile(DETECTOR)
    cfg.model.backbone.init_cfg = None
    head = build(cfg).roi_head.to(device).eval()
    whole = levels(1)
    pyramid = FeatureDraws(whole)
    pyramid.draws = tuple(x.repeat(4, 1, 1, 1) for x in whole)
    corners = torch.rand(512, 2, 2).sort(1).values
    boxes = (corners * torch.tensor([width, height])).flatten(1)
    rois = torch.cat([torch.zeros(512, 1), boxes], 1).to(device)
    scores = torch.rand(8, 1, height // 4, width // 4, device=device)
    mean, four = Draws(), Draws(attention=4, latent=1, seed=0)
    calls: dict[str, dict[float, Callable[[], Any]]] = {
        'attention alone over the area of the image': {
            share: partial(under, mean, neck, levels(share))
            for share in (1 / 8, 1 / 4, 1 / 2, 1)
        },
        'attention alone over L_a': {
            count: partial(under, Draws(count, seed=0), neck, whole)
            for count in (1, 2, 4, 8)
        },
        'nearest_anchor over Q': {
            count: partial(
                nearest_anchor,
                scores,
                torch.linspace(0, 1, count, device=device),
            )
            for count in (16, 64, 256, 1024)
        },
        'RoIAlign and box head, L_a = 4, over RoIs': {
            count: partial(
                under, four, head._bbox_forward, pyramid, rois[:count]
            )
            for count in (64, 128, 256, 512)
        },
    }
    rows = [['growth of', 'at', 'ms', 'exponent']]
    for name, series in calls.items():
        named = {f'{at:g}': call for at, call in series.items()}
        times = interleaved(named, args.rounds, device)
        seconds = [median(own) for own in times.values()]
        slope = np.polyfit(np.log([*series]), np.log(seconds), 1)[0]
        milliseconds = ', '.join(f'{1e3 * one:.1f}' for one in seconds)
        rows.append([name, ', '.join(named), milliseconds, f'{slope:.2f}'])
    return 'How time grows:', rows


def distance_table(x: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 15 in the paper's letter: Q distances for each score."""
    indices = (x[..., None] - anchors).abs().argmin(-1)
    return anchors[indices], indices


def anchor_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """`nearest_anchor` against the distance table."""
    rows = [
        [
            'Q',
            'ms, nearest_anchor : table',
            'table / nearest_anchor',
            'peak MiB, nearest_anchor : table',
        ]
    ]
    for num_anchors in (20, 50, 200):
        x = torch.rand(8, 1, 200, 336, device=args.device)
        anchors = torch.linspace(0, 1, num_anchors, device=args.device)
        calls = {
            call.__name__: partial(call, x, anchors)
            for call in (nearest_anchor, distance_table)
        }
        (_, ours), (slower, theirs) = timed(calls, args, rounds=9).values()
        peaks = [peak_mib(call, args.device) for call in calls.values()]
        rows.append(
            [
                f'Q = {num_anchors}',
                f'{ours * 1e3:.1f} : {theirs * 1e3:.1f}',
                f'{slower:.1f}',
                ' : '.join(peaks),
            ]
        )
    return 'Anchors of scores 8x1x200x336:', rows


def uncertainty_table(args: argparse.Namespace) -> tuple[str, Rows]:
    """Predictions at the mean, of latents averaged, and with their
    uncertainty."""
    detector_cfg = Config.fromfile(DETECTOR)
    detector_cfg.model.backbone.init_cfg = None
    segmentor_cfg = segmentor_config('aib-qt_', args.seg_size)
    segmentor_cfg.model.decode_head.latent.std_source = 'mean'
    torch.manual_seed(0)
    data = detector_inputs(args.size)
    rows = [['uncertainty', 'time / mean', 'median s', 'peak MiB']]
    segments = segmentor_inputs(args.seg_size, 1)
    for name, cfg, inputs, rois in (
        ('detector', detector_cfg, data, dict(rois='all')),
        ('segmentor', segmentor_cfg, segments, {}),
    ):
        model = build(cfg).to(args.device)
        calls = {f'{name}, mean': partial(predict, model, inputs)}
        for count in LATENTS:
            for label, more in (
                ('averaged', {}),
                ('with uncertainty', dict(uncertainty=True)),
            ):
                asked = dict(latent=count, seed=0, **more, **rois)
                calls[f'{name}, L_z = {count}, {label}'] = partial(
                    predict, model, inputs, asked
                )
        for label, (slower, seconds) in timed(calls, args).items():
            peak = peak_mib(calls[label], args.device)
            rows.append([label, f'{slower:.3f}', f'{seconds:.3f}', peak])
        model.to('cpu')
    return 'What uncertainty over draws of the latent costs:', rows


TABLES = {
    'detector': detector_table,
    'segmentor': segmentor_table,
    'operators': operator_table,
    'growth': growth_table,
    'anchors': anchor_table,
    'uncertainty': uncertainty_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    for name, size, help_ in (
        ('--size', (800, 1344), "of the detector's image"),
        ('--seg-size', (512, 512), "of the segmentor's, multiples of 16"),
    ):
        add(
            name, type=int, nargs=2, default=size, metavar=('H', 'W'),
            help=help_,
        )  # fmt: skip
    add('--rounds', type=int, default=5)
    add('--threads', type=int, default=1)
    add('--device', type=device_argument, default='cpu', help='cpu or cuda')
    add('--only', choices=TABLES, nargs='+', default=TABLES, help='tables')
    add('--rows', default='', metavar='REGEX',
        help='of models, beside their base model')  # fmt: skip
    add('--out', type=Path, help='markdown file to write')
    args = parser.parse_args()
    args.size, args.seg_size = tuple(args.size), tuple(args.seg_size)
    torch.set_num_threads(args.threads)
    reuse_memory()  # as every command of mmaib
    register_config_sources()
    # or every model's initialisation is logged parameter by parameter
    MMLogger.get_instance('mmengine', log_level='WARNING')
    where = f'{args.threads} thread(s)'
    if args.device.type == 'cuda':
        where = torch.cuda.get_device_name(args.device)
    lines = [
        f'Benchmark: {where}, median of {args.rounds} interleaved rounds.',
        '',
    ]
    about = [f'    {line}' for line in report()[0].splitlines()]
    about += ['', f'    {platform.platform()}, {platform.processor()}', '']
    for name, table in TABLES.items():
        if name not in args.only:
            continue
        title, rows = table(args)
        lines += [title, '', *markdown(rows), '']
        text = '\n'.join([*lines, *about])
        print(text, flush=True)
        if args.out:  # each as it ends: a run that is cut off keeps its own
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(text)


if __name__ == '__main__':
    main()
