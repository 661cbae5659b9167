"""A readout to and from a folder, or the Hugging Face hub: tens of KB, with
its config and a model card; the base model's tensors stay where they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config

from mmaib import __version__, compat
from mmaib.models.base_checkpoint import KEY, BaseCheckpoint
from mmaib.preflight.checkpoint import read_checkpoint
from mmaib.visualization.tables import markdown
from mmaib.visualization.work_dirs import last_checkpoint, read_run

from .launch import device_of
from .loading import load_model
from .readout import SHARE, table

HUB = 'hf://'
CONFIG, WEIGHTS = 'config.py', 'readout.pth'
# of files; every tensor comes from the two checkpoints
LEFT_OUT = ('init_cfg', 'base_checkpoint')
# what a config names is registered with one of these: scope.Name
SCOPES = ('mmaib', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
DOTTED = re.compile(r"'([A-Za-z_]\w*)\.([\w.]+)'")


def save_readout(work_dir: str | Path, to: str | Path) -> None:
    """Put a trained readout into a folder or on the hub.

    Args:
        work_dir: folder of its training, such as `mmaib readout --out`.
        to: a folder that is new or empty, or ``hf://USER/NAME``.

    Raises:
        ValueError: if ``work_dir`` has no evaluated readout, or ``to`` files.
        FileNotFoundError: if nothing was trained in ``work_dir``.
    """
    if str(to).startswith(HUB):
        import huggingface_hub as hub

        name = str(to).removeprefix(HUB)
        with TemporaryDirectory() as folder:
            save_readout(work_dir, folder)
            hub.create_repo(name, exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=folder)
        return
    work_dir, to = Path(work_dir), Path(to)
    if to.exists() and any(to.iterdir()):
        raise ValueError(f'to={to}: not empty, take another folder')
    checkpoint = read_checkpoint(str(last_checkpoint(work_dir)))
    state, run = checkpoint['state_dict'], read_run(work_dir)
    if KEY not in state:
        raise ValueError(
            f"work_dir={work_dir}: its checkpoint is a whole model's, not of "
            "a readout over a base model (frozen='base', load_from=FILE)"
        )
    if not any(name.startswith('ablation/open/') for name in run.metrics):
        raise ValueError(
            f'work_dir={work_dir}: not evaluated beside the base model, as '
            "`mmaib readout` does by AttentionEvalHook's ablations=['open']"
        )
    assert run.config is not None  # training dumps it
    base = BaseCheckpoint.from_tensor(state[KEY])
    base = base._replace(path=Path(base.path).name)  # no path of this disk
    meta = dict(dataset_meta=checkpoint['meta'].get('dataset_meta', {}))
    text = ''.join(
        f'{name} = {pformat(value, width=79, sort_dicts=False)}\n'
        for name, value in _fields(run.config).items()
    )
    parse(text, 'the config')  # refuses what could not be loaded again
    metrics = dict(run.metrics)
    if opened := run.training.get('gate_open'):
        metrics[SHARE] = [*opened.values()][-1]
    rows = table(metrics)
    versions = {'mmaib': __version__, **run.facts.get('versions', {})}
    card = (Path(__file__).parent / 'model_card.md').read_text()
    to.mkdir(parents=True, exist_ok=True)
    state = {**state, KEY: base.to_tensor()}
    torch.save(dict(state_dict=state, meta=meta), to / WEIGHTS)
    (to / CONFIG).write_text(text)
    (to / 'README.md').write_text(
        card.format(
            scope=run.config.default_scope,
            name=run.name,
            file=base.path,
            sha256=base.sha256,
            table='\n'.join(markdown(rows)),
            seed=run.seed,
            versions=', '.join(f'{k} {v}' for k, v in versions.items()),
            device=run.facts.get('device', 'unknown device'),
        )
    )


def load_readout(
    source: str | Path, base_checkpoint: str | Path, device: str | None = None
) -> Any:
    """A readout over its base model, in evaluation mode, with ``cfg``. The
    config is parsed, not run.

    Args:
        source: a folder of :func:`save_readout`, or ``hf://USER/NAME``.
        base_checkpoint: the base model's file, which is checked by its hash.
        device: a GPU if there is one by default.

    Raises:
        ValueError, FileNotFoundError: naming what does not fit.
    """
    if str(source).startswith(HUB):
        import huggingface_hub as hub

        name = str(source).removeprefix(HUB)
        source = hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS])
    compat.register_config_sources()
    path = Path(source) / CONFIG
    cfg = Config(parse(path.read_text(), str(path)))
    cfg.model.base_checkpoint = str(base_checkpoint)
    weights = str(path.with_name(WEIGHTS))
    return load_model(cfg, weights, device_of(device))


def _fields(cfg: Config) -> dict[str, Any]:
    """The config's fields of the model, and of how it loads an image."""
    kept = ('default_scope', 'data_preprocessor', 'model')
    fields = {name: cfg[name] for name in kept if name in cfg}
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    loading = {k: v for k, v in dataset.items() if k == 'pipeline'}
    fields['test_dataloader'] = dict(dataset=loading)
    return _without_files(Config(fields).to_dict())


def _without_files(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in LEFT_OUT}
        return {k: _without_files(v) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_files, value))
    return value


def parse(text: str, name: str) -> dict[str, Any]:
    """A config of fields and literals.

    Raises:
        ValueError: if it holds anything else, or names what is not
            registered with mmaib or a base library.
    """
    fields = {}
    for line in ast.parse(text).body:
        try:
            (target,) = line.targets  # type: ignore[attr-defined]
            fields[target.id] = ast.literal_eval(line.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f'{name}, line {line.lineno}: not a field and a literal'
            ) from error
    for found in DOTTED.finditer(repr(fields)):
        if found[1] not in SCOPES or '.' in found[2]:
            raise ValueError(
                f'{name}: {found[0]} is not registered by {", ".join(SCOPES)}'
            )
    return fields
