"""Try `mmaib wrap` on one config of each family of the base libraries:
what is found goes into mmaib/cli/wrap/families.txt, which `mmaib wrap --list`
prints, and its counts into docs/any_model.md.

    python tests/families.py [mmdet mmseg mmpretrain | mmdet::retinanet ...]
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.utils import get_installed_path
from support import REPOSITORY, matrix
from torch._subclasses.fake_tensor import DataDependentOutputException

from mmaib.cli import wrap
from mmaib.cli.loading import build_model, read_config
from mmaib.cli.wrap.look import blank_image, image_size, inner
from mmaib.cli.wrap.shapes import Uninitialised, valueless
from mmaib.losses import collect

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain', 'mmrotate')
KEPT = REPOSITORY / 'mmaib' / 'cli' / 'wrap' / 'families.txt'
PAGE = REPOSITORY / 'docs' / 'any_model.md'
BEGIN, END = '<!-- families: python tests/families.py -->', '<!-- end -->'
PLACED = 'placed'
SECONDS = 60  # of a family, of this process's own
# what of an error is its reason, in a word; the first that is in it
REASONS = {
    'lap is not installed': 'needs the package lap',
    'Detectron2': 'needs the package detectron2',
    'multimodal': 'needs mmpretrain[multimodal]',
    'gives other features in training': 'other features in training: --at',
    'leaves out mask_ratio': 'leaves out patches in training',
    'is not in the': 'names a class that its library does not have',
    'transformers': 'needs the package transformers',
    'fairscale': 'needs the package fairscale',
    'VPD model': 'needs the packages of VPD',
    'e2cnn': 'needs the package e2cnn',
    'custom modules': 'imports what its library no longer is',
    'model.type is None': 'no model: fields for other configs',
    'inheritance chain': 'MMEngine cannot read it: mixed styles',
    'where its features pass is unknown': 'features pass outside one model',
    'where attention could stand is unknown': 'gives no maps',
    'takes no image': 'takes no plain image of the usual size',
    'cannot be read': 'MMEngine cannot read it',
    'as it is does not build': 'does not build without mmaib',
}
# of what is no model, or does not build by itself
APART = {
    why
    for why in REASONS.values()
    if why.startswith(('needs', 'names a', 'imports', 'no model', 'MMEngine'))
}


def families(library: str) -> Iterator[tuple[str, list[str]]]:
    """``('mmdet::retinanet', names)``: the configs of each folder, those of
    models that are fine-tuned last; none of what is not installed."""
    if not find_spec(library):
        return
    root = Path(get_installed_path(library)) / '.mim' / 'configs'
    for folder in sorted(p for p in root.iterdir() if p.name[0] != '_'):
        name = f'{library}::{folder.name}'
        names = [
            f'{name}/{p.relative_to(folder)}'
            for pattern in ('*.py', 'benchmarks/*.py')
            for p in sorted(folder.glob(pattern))
        ]
        if names:
            yield name, names


def state(names: list[str]) -> str:
    """``'placed: ...'``, or why not, of the first config with a model; of a
    family whose first takes none, of its last, such as the fine-tuned one."""
    name, *others = names
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with TemporaryDirectory() as folder:
            out = Path(folder, 'out.py')
            lines = wrap.wrap(name, out)
            step(read_config(str(out)))
    except Exception as error:
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        if others and ('model.type is None' in text or f' {name}: ' in text):
            return state(others)
        if others:
            found = state(others[-1:])
            own = others[-1].partition('/')[2].removesuffix('.py')
            placed = found.startswith(PLACED)
            return f'{found} (in {own})' if placed else found
        known = (why for part, why in REASONS.items() if part in text)
        return next(known, text.replace(f'{name} ', '')[:150])
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    place = next(x for x in lines if ': gate ' in x)
    return f'{PLACED}: {place.partition(": ")[2].partition(", of ")[0]}'


def step(cfg: Any) -> None:
    """Features forward and backward, without values: each parameter of
    mmaib's learns by them or by what it reports."""
    base_model, field = cfg.model, None
    while 'backbone' not in base_model:
        field = next(
            k
            for k, v in base_model.items()
            if isinstance(v, dict) and str(v.get('type')).startswith('mmaib.')
        )
        base_model = base_model[field]
    with Uninitialised():
        whole = build_model(cfg)
    model = inner(whole, field) if field else whole
    size = image_size(base_model, model, cfg)
    images = blank_image(model, size).repeat(2, 1, 1, 1)
    model.train()
    neck = getattr(model, 'neck', None)
    try:
        with valueless():
            learn(model, images, neck)
    except DataDependentOutputException:
        learn(model, images, neck)
    except NotFeaturesError:
        return
    still = [
        key
        for key, parameter in model.named_parameters()
        if matrix.is_ours(model, key)
        and parameter.requires_grad
        and parameter.grad is None
    ]
    if still:
        raise RuntimeError(f'no gradient: {still}')


class NotFeaturesError(Exception):
    """A neck is given more than features, or other ones, by the loss."""


def learn(model: Any, images: torch.Tensor, neck: Any) -> None:
    """Gradients of features and of what is reported beside them."""
    ran: list[Any] = []
    with ExitStack() as handles, collect() as aux:
        if neck is not None:
            handle = neck.register_forward_hook(lambda *_: ran.append(_))
            handles.callback(handle.remove)
        features = model.extract_feat(images)
        if neck is not None and not ran:  # self-supervised models' loss() does
            try:
                features = neck(features)
            except (TypeError, RuntimeError) as error:
                raise NotFeaturesError from error
        total = sum(x.float().sum() for x in tensors(features))
        total = total + sum(v for k, v in aux.mean().items() if 'loss' in k)
        total.backward()


def tensors(value: Any) -> list[torch.Tensor]:
    """Those of features in lists and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if value is None:  # an auxiliary output that is off
        return []
    items = value.values() if isinstance(value, dict) else value
    return [x for item in items for x in tensors(item)]


def counted(lines: list[str]) -> list[str]:
    """The page's table."""
    rows = [
        '',
        '| library | families tried | placed | not placed | placed of those '
        'that build |',
        '|---|---|---|---|---|',
    ]
    total = np.zeros(3, int)
    for library in LIBRARIES:
        found = dict(
            line.removeprefix(f'{library}::').split(maxsplit=1)
            for line in lines
            if line.startswith(f'{library}::')
        )
        rest: dict[str, list[str]] = {}
        for family, why in found.items():
            if not why.startswith(PLACED):
                rest.setdefault(why, []).append(family)
        reasons = '; '.join(
            f'{why}: {", ".join(f)}' for why, f in rest.items()
        )
        placed = len(found) - sum(map(len, rest.values()))
        every = len([*families(library)]) or len(found)
        builds = len(found) - sum(len(rest.get(why, ())) for why in APART)
        rows.append(
            f'| {library} | {len(found)} of {every} | {placed} | {reasons} | '
            f'{placed} of {builds}, {100 * placed / builds:.1f} % |'
        )
        if library != 'mmrotate':
            total += [len(found), placed, builds]
    tried, placed, builds = total.tolist()
    return [
        *rows,
        '',
        f'Of the first three libraries, {placed} of all {tried} are placed '
        f'({100 * placed / tried:.1f} %), and {placed} of the {builds} '
        f'({100 * placed / builds:.1f} %) that are a model and build with '
        'what is installed.',
        '',
    ]


def late(*_: Any) -> None:
    raise TimeoutError(f'more than {SECONDS} s')


def keep(family: str, found: str) -> None:
    """What was found of a family, in the place of what was."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    lines = [x for x in lines if x.split()[0] != family]
    lines.append(f'{family:<34} {found}')
    print(lines[-1], flush=True)
    KEPT.write_text('\n'.join([*sorted(lines), '']))


def main(only: list[str]) -> None:
    matrix.quiet()
    torch.set_num_threads(1)
    signal.signal(signal.SIGVTALRM, late)
    for library in LIBRARIES:
        for family, names in families(library):
            if not only or library in only or family in only:
                keep(family, state(names))
    write_page()


def write_page() -> None:
    """Counts of what is kept."""
    lines = KEPT.read_text().splitlines()
    head, _, rest = PAGE.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(head + '\n'.join([BEGIN, *counted(lines), END]) + tail)


if __name__ == '__main__':
    main(sys.argv[1:])
