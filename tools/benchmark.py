"""Time ours against the host, interleaved in one process.

    python tools/benchmark.py --out work_dirs/benchmark.md

Each round times every variant once, so that the machine's drift falls on all
of them; a figure is the median over rounds of the ratio to the host's time in
the same round. Ours starts from the host's weights, so both see the same
number of proposals. MACs are counted on a real `predict`, with the RoI head
on all draws. The second table times `nearest_anchor` against a table of Q
distances.
"""

import argparse
import ctypes
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmaib.compat import report
from mmaib.functional import nearest_anchor
from mmaib.testing.detection import COCO, build, plain_config

OURS = COCO / 'aib-qt_faster-rcnn_r50_fpn_1x_coco.py'


def interleaved(
    variants: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round warms up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, call in variants.items():
            begun = time.perf_counter()
            call()
            if round_:
                times[name].append(time.perf_counter() - begun)
        print(f'  round {round_} of {rounds}', flush=True)
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of the paired ratio."""
    return median(a / b for a, b in zip(times[name], times[base]))


def detectors(config: Path) -> tuple[Any, Any, Any]:
    """The host's detector, the same with torchvision's RoIAlign, which our
    config asks for, and ours with the host's weights."""
    cfgs = [plain_config(), plain_config(), Config.fromfile(config)]
    roi_layer = cfgs[1].model.roi_head.bbox_roi_extractor.roi_layer
    roi_layer.use_torchvision = True
    for cfg in cfgs:
        cfg.model.backbone.init_cfg = None
    host, swapped, ours = map(build, cfgs)
    for other in (swapped, ours):
        other.load_state_dict(host.state_dict(), strict=False)
    return host, swapped, ours


def batch(height: int, width: int) -> dict:
    from mmdet.testing import demo_mm_inputs

    torch.manual_seed(0)
    return demo_mm_inputs(
        1, [[3, height, width]], num_items=[8], num_classes=80
    )


def predict(model: Any, data: dict, draws: dict | None = None) -> None:
    model.eval()
    if hasattr(model, 'test_draws'):
        model.test_draws = draws
    with torch.no_grad():
        prepared = model.data_preprocessor(data, False)
        model(**prepared, mode='predict')


def train(model: Any, data: dict) -> None:
    model.train()
    prepared = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**prepared, mode='loss'))
    model.zero_grad(set_to_none=True)
    loss.backward()


def gmacs(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e9


def millions(model: Any) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def detector_table(
    config: Path, size: tuple[int, int], rounds: int
) -> list[str]:
    """Markdown rows for training and inference."""
    host, swapped, ours = detectors(config)
    data = batch(*size)

    def draws(count: int) -> dict:
        return dict(attention=count, latent=1, seed=0)

    inference = {
        'host': lambda: predict(host, data),
        'host, torchvision RoIAlign': lambda: predict(swapped, data),
        'ours, mean': lambda: predict(ours, data),
        'ours, L_a = 1': lambda: predict(ours, data, draws(1)),
        'ours, L_a = 4': lambda: predict(ours, data, draws(4)),
    }
    training = {
        'host, training step': lambda: train(host, data),
        'host, torchvision RoIAlign, training step': lambda: train(
            swapped, data
        ),
        'ours, training step': lambda: train(ours, data),
    }
    rows = [
        '| variant | time / host | time / host with the same RoIAlign '
        '| median s | GMACs | M parameters |',
        '|---|---|---|---|---|---|',
    ]
    for variants in (inference, training):
        times = interleaved(variants, rounds)
        base, same_roi_align = list(variants)[:2]
        for name, call in variants.items():
            macs = '-'
            if variants is inference:
                macs = f'{gmacs(call):.1f}'
            model = host if name.startswith('host') else ours
            rows.append(
                f'| {name} | {ratio(times, name, base):.3f} '
                f'| {ratio(times, name, same_roi_align):.3f} '
                f'| {median(times[name]):.2f} | {macs} '
                f'| {millions(model):.2f} |'
            )
    return rows


def distance_table(x: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 15 as it is printed: Q distances for each score."""
    indices = (x[..., None] - anchors).abs().argmin(-1)
    return anchors[indices], indices


def peak_mib(call: Callable[[], Any]) -> str:
    """Growth of this process's memory at the peak of one call (Linux)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory hides the growth
        Path('/proc/self/clear_refs').write_text('5')  # resets the peak
        before = _status_kib('VmRSS')
        call()
        return f'{(_status_kib("VmHWM") - before) / 1024:.0f}'
    except (OSError, AttributeError):
        return 'not measured'


def _status_kib(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f'no {field} in /proc/self/status')


def anchor_table(rounds: int) -> list[str]:
    """Markdown rows for `nearest_anchor` against the distance table."""
    shape = (8, 1, 200, 336)
    rows = [
        '| scores 8x1x200x336 | time, nearest_anchor : table '
        '| table / nearest_anchor | peak MiB, nearest_anchor : table |',
        '|---|---|---|---|',
    ]
    for num_anchors in (20, 50, 200):
        x, anchors = torch.rand(shape), torch.linspace(0, 1, num_anchors)
        variants = {
            'ours': partial(nearest_anchor, x, anchors),
            'table': partial(distance_table, x, anchors),
        }
        times = interleaved(variants, rounds)
        peaks = [peak_mib(call) for call in variants.values()]
        rows.append(
            f'| Q = {num_anchors} '
            f'| {median(times["ours"]) * 1e3:.1f} ms : '
            f'{median(times["table"]) * 1e3:.1f} ms '
            f'| {ratio(times, "table", "ours"):.1f} '
            f'| {peaks[0]} : {peaks[1]} |'
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--config', type=Path, default=OURS)
    parser.add_argument(
        '--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W')
    )
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--only', choices=['detector', 'anchors'], help='one table of the two'
    )
    parser.add_argument('--out', type=Path, help='markdown file to write')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    height, width = args.size
    lines = [
        f'Benchmark: {args.config.stem}, one {height}x{width} image, '
        f'{args.threads} thread(s), median of {args.rounds} interleaved '
        'rounds.',
        '',
    ]
    if args.only != 'anchors':
        lines += detector_table(args.config, (height, width), args.rounds)
        lines.append('')
    if args.only != 'detector':
        lines += anchor_table(max(args.rounds, 9))
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
