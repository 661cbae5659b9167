"""Time mmaib's models against the base model, interleaved in one process.

    python tools/benchmark.py --out work_dirs/benchmark.md

Each round times every variant once, so that the machine's drift falls on all
of them; a figure is the median over rounds of the ratio to the base model's
time in the same round. The method and the gate start from the base model's
weights; the gate, shut as it starts, sees the base model's proposals, the
method about as many. MACs are counted on a real `predict`, with all draws, or
on the forward pass of a training step. The tables: Faster R-CNN R50 (one
800x1344 image), UPerNet BEiT-base (512x512, training on two), the attention
alone beside other attentions on the levels of that pyramid, `nearest_anchor`
against a table of Q distances, and what uncertainty over draws of the latent
costs either model in time and memory.

With `--device cuda` the tables also give the peak of the GPU's memory during
a call, without the weights.
"""

import argparse
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import Tensor, nn

from mmaib.cli.launch import device_argument
from mmaib.compat import register_config_sources, report
from mmaib.evaluation.cost import gmacs, interleaved, millions, peak_mib
from mmaib.functional import nearest_anchor
from mmaib.layers import AttentiveBottleneck

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
COCO = CONFIGS / 'detection' / 'faster_rcnn'
UPERNET = CONFIGS / 'segmentation' / 'upernet'
BEIT = 'beit-base_upernet_8xb2-160k_ade20k-512x512.py'
DETECTOR = COCO / 'aib-qt_faster-rcnn_r50_fpn_1x_coco.py'
TABLES = ('detector', 'segmentor', 'attention', 'anchors', 'uncertainty')
LATENTS = (4, 8, 16)


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of the paired ratio."""
    return median(a / b for a, b in zip(times[name], times[base]))


def draws(count: int) -> dict:
    return dict(attention=count, latent=1, seed=0)


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


def segmentor_config(name: str, size: tuple[int, int]) -> Config:
    """An UPerNet BEiT without weights, for images of that size."""
    cfg = Config.fromfile(UPERNET / f'{name}{BEIT}')
    cfg.model.pretrained = None
    cfg.model.backbone.img_size = size
    cfg.model.data_preprocessor.update(size=size, test_cfg=dict(size=size))
    cfg.model.test_cfg = dict(mode='whole')
    return cfg


def segmentor_inputs(size: tuple[int, int], count: int) -> dict:
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


def inference(model: Any, data: dict, count: int | None = None) -> Variant:
    call = partial(predict, model, data, draws(count) if count else 'mean')
    return Variant(model, call, call)


def training(model: Any, data: dict) -> Variant:
    return Variant(
        model, partial(train, model, data), partial(forward, model, data)
    )


def head(device: torch.device) -> list[str]:
    """Head of a table of variants."""
    cells = ['time / base model', 'median s', 'GMACs', 'M parameters']
    if device.type == 'cuda':
        cells.append('peak MiB')
    return [
        f'| variant | {" | ".join(cells)} |',
        '|---' * (1 + len(cells)) + '|',
    ]


def rows(
    variants: dict[str, Variant],
    base: str,
    rounds: int,
    device: torch.device,
) -> list[str]:
    """Rows under that head, ``base`` being the base model."""
    on_gpu = device.type == 'cuda'
    calls = {name: variant.timed for name, variant in variants.items()}
    times = interleaved(calls, rounds, device)
    lines = []
    for name, variant in variants.items():
        cells = [
            f'{ratio(times, name, base):.3f}',
            f'{median(times[name]):{".4f" if on_gpu else ".2f"}}',
            f'{gmacs(variant.counted):.1f}',
            f'{millions(variant.model):.2f}',
        ]
        if on_gpu:
            variant.model.zero_grad(set_to_none=True)
            cells.append(peak_mib(variant.timed, device))
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return lines


def detector_table(
    config: Path, size: tuple[int, int], rounds: int, device: torch.device
) -> list[str]:
    """The base model, the method and the gate with its weights."""
    from mmdet.testing import demo_mm_inputs

    cfgs = (
        get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
        Config.fromfile(config),
        Config.fromfile(COCO / 'gate_faster-rcnn_r50_fpn_1x_coco.py'),
    )
    for cfg in cfgs:
        cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)  # of the weights hangs how many proposals there are
    base_model, ours, gate = (build(cfg).to(device) for cfg in cfgs)
    for model in (ours, gate):
        model.load_state_dict(base_model.state_dict(), strict=False)
    # as open as at the start, or the base model would see other proposals
    gate.neck.bottleneck.modulation.strength.zero_()
    data = demo_mm_inputs(1, [[3, *size]], num_items=[8], num_classes=80)
    return [
        *head(device),
        *rows(
            {
                'base model': inference(base_model, data),
                'ours, mean': inference(ours, data),
                'ours, L_a = 1': inference(ours, data, 1),
                'ours, L_a = 2': inference(ours, data, 2),
                'ours, L_a = 4': inference(ours, data, 4),
                'gate, mean': inference(gate, data),
            },
            'base model',
            rounds,
            device,
        ),
        *rows(
            {
                'base model, training step': training(base_model, data),
                'ours, training step': training(ours, data),
                'gate, training step': training(gate, data),
            },
            'base model, training step',
            rounds,
            device,
        ),
    ]


def segmentor_table(
    size: tuple[int, int], rounds: int, device: torch.device
) -> list[str]:
    """The base model, and both forms of the std with the base model's
    weights."""
    plain, paper, cheap = (
        segmentor_config(name, size) for name in ('', 'aib-qt_', 'aib-qt_')
    )
    cheap.model.decode_head.latent.std_source = 'mean'
    torch.manual_seed(0)
    base_model, paper, cheap = (
        build(cfg).to(device) for cfg in (plain, paper, cheap)
    )
    for ours in (paper, cheap):
        ours.load_state_dict(base_model.state_dict(), strict=False)
    one, two = (segmentor_inputs(size, count) for count in (1, 2))
    return [
        *head(device),
        *rows(
            {
                'base model': inference(base_model, one),
                'ours, mean': inference(paper, one),
                'ours, L_a = 1, std 3x3': inference(paper, one, 1),
                'ours, L_a = 1, std 1x1': inference(cheap, one, 1),
                'ours, L_a = 2, std 3x3': inference(paper, one, 2),
                'ours, L_a = 2, std 1x1': inference(cheap, one, 2),
            },
            'base model',
            rounds,
            device,
        ),
        *rows(
            {
                'base model, training step': training(base_model, two),
                'ours, training step, std 3x3': training(paper, two),
                'ours, training step, std 1x1': training(cheap, two),
            },
            'base model, training step',
            rounds,
            device,
        ),
    ]


class SpatialGate(nn.Module):
    """The spatial half of CBAM (Woo et al., ECCV 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, True), x.mean(1, True)], dim=1)
        return x * self.norm(self.conv(pooled)).sigmoid()


def attention_table(
    size: tuple[int, int], rounds: int, device: torch.device
) -> list[str]:
    """Attentions alone, each against a copy of the features."""
    from mmcv.cnn import ContextBlock

    channels = 256
    levels = [
        torch.randn(1, channels, *(-(-side // stride) for side in size))
        for stride in (4, 8, 16, 32, 64)
    ]
    levels = [level.to(device) for level in levels]
    anchors = dict(num_anchors=20)
    modules = {
        'copy': torch.clone,
        'aib, mean': AttentiveBottleneck(channels),
        'aib-qt, mean': AttentiveBottleneck(channels, quantizer=anchors),
        "mmcv's ContextBlock": ContextBlock(channels, ratio=1 / 16),
        "CBAM's spatial gate": SpatialGate(),
    }
    for module in modules.values():
        if isinstance(module, nn.Module):
            module.to(device).eval()

    @torch.no_grad()
    def attend(module: Callable[[Tensor], Tensor]) -> None:
        for level in levels:
            module(level)

    calls = {name: partial(attend, module) for name, module in modules.items()}
    times = interleaved(calls, rounds, device)
    return [
        '| attention alone | time / copy | median ms |',
        '|---|---|---|',
        *(
            f'| {name} | {ratio(times, name, "copy"):.2f} '
            f'| {median(times[name]) * 1e3:.1f} |'
            for name in modules
        ),
    ]


def distance_table(x: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 15 in the paper's letter: Q distances for each score."""
    indices = (x[..., None] - anchors).abs().argmin(-1)
    return anchors[indices], indices


def anchor_table(rounds: int, device: torch.device) -> list[str]:
    """Markdown rows for `nearest_anchor` against the distance table."""
    shape = (8, 1, 200, 336)
    lines = [
        '| scores 8x1x200x336 | time, nearest_anchor : table '
        '| table / nearest_anchor | peak MiB, nearest_anchor : table |',
        '|---|---|---|---|',
    ]
    for num_anchors in (20, 50, 200):
        x = torch.rand(shape, device=device)
        anchors = torch.linspace(0, 1, num_anchors, device=device)
        variants = {
            'ours': partial(nearest_anchor, x, anchors),
            'table': partial(distance_table, x, anchors),
        }
        times = interleaved(variants, rounds, device)
        peaks = [peak_mib(call, device) for call in variants.values()]
        lines.append(
            f'| Q = {num_anchors} '
            f'| {median(times["ours"]) * 1e3:.1f} ms : '
            f'{median(times["table"]) * 1e3:.1f} ms '
            f'| {ratio(times, "table", "ours"):.1f} '
            f'| {peaks[0]} : {peaks[1]} |'
        )
    return lines


def uncertainty_table(
    config: Path,
    size: tuple[int, int],
    seg_size: tuple[int, int],
    rounds: int,
    device: torch.device,
) -> list[str]:
    """Predictions at the mean, of latents averaged, and with their uncertainty
    of uncertainty."""
    from mmdet.testing import demo_mm_inputs

    detector_cfg = Config.fromfile(config)
    detector_cfg.model.backbone.init_cfg = None
    segmentor_cfg = segmentor_config('aib-qt_', seg_size)
    segmentor_cfg.model.decode_head.latent.std_source = 'mean'
    torch.manual_seed(0)
    data = demo_mm_inputs(1, [[3, *size]], num_items=[8], num_classes=80)
    models = {
        'detector': (build(detector_cfg), data),
        'segmentor': (
            build(segmentor_cfg),
            segmentor_inputs(seg_size, 1),
        ),
    }
    lines = [
        '| uncertainty | time / mean | median s | peak MiB |',
        '|---|---|---|---|',
    ]
    for name, (model, inputs) in models.items():
        model.to(device)
        calls = {f'{name}, mean': partial(predict, model, inputs)}
        for count in LATENTS:
            for label, more in [
                ('averaged', {}),
                ('with uncertainty', dict(uncertainty=True)),
            ]:
                asked = dict(latent=count, seed=0, **more)
                calls[f'{name}, L_z = {count}, {label}'] = partial(
                    predict, model, inputs, asked
                )
        times = interleaved(calls, rounds, device)
        for label, call in calls.items():
            slower = ratio(times, label, f'{name}, mean')
            lines.append(
                f'| {label} | {slower:.3f} | {median(times[label]):.3f} '
                f'| {peak_mib(call, device)} |'
            )
        model.to('cpu')
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--config', type=Path, default=DETECTOR)
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=('H', 'W'),
        help="of the detector's image",
    )
    parser.add_argument(
        '--seg-size',
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=('H', 'W'),
        help="of the segmentor's, multiples of 16",
    )
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--device', type=device_argument, default='cpu', help='cpu or cuda'
    )
    parser.add_argument(
        '--only', choices=TABLES, nargs='+', default=TABLES, help='tables'
    )
    parser.add_argument('--out', type=Path, help='markdown file to write')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
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
    if 'detector' in args.only:
        height, width = args.size
        lines += [f'{args.config.stem}, one {height}x{width} image:', '']
        lines += detector_table(
            args.config, (height, width), args.rounds, args.device
        )
        lines.append('')
    if 'segmentor' in args.only:
        height, width = args.seg_size
        lines += [
            f'aib-qt_{Path(BEIT).stem} at {height}x{width}, one image, two in '
            'training; GMACs of the forward pass:',
            '',
        ]
        lines += segmentor_table((height, width), args.rounds, args.device)
        lines.append('')
    if 'attention' in args.only:
        height, width = args.size
        lines += [f'256 channels, five levels of {height}x{width}:', '']
        lines += attention_table(
            (height, width), max(args.rounds, 9), args.device
        )
        lines.append('')
    if 'anchors' in args.only:
        lines += anchor_table(max(args.rounds, 9), args.device)
        lines.append('')
    if 'uncertainty' in args.only:
        lines += uncertainty_table(
            args.config,
            (args.size[0], args.size[1]),
            (args.seg_size[0], args.seg_size[1]),
            args.rounds,
            args.device,
        )
        lines.append('')
    lines += [f'    {line}' for line in report()[0].splitlines()]
    lines += ['', f'    {platform.platform()}, {platform.processor()}', '']
    text = '\n'.join(lines)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == '__main__':
    main()
