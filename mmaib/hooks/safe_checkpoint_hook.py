from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmaib.files import write_whole
from mmaib.models.base_checkpoint import BaseCheckpoint, learned
from mmaib.models.wrapping import unwrapped
from mmaib.registry import HOOKS


class AtomicLocalBackend(LocalBackend):
    """Local files whose name never stands for half of their contents."""

    def put(self, obj: bytes, filepath: Any) -> None:
        path = Path(filepath)
        try:
            write_whole(path, obj)
        except OSError as error:
            megabytes = shutil.disk_usage(path.parent).free / 2**20
            raise OSError(
                error.errno,
                f'{error.strerror}: a checkpoint of {len(obj) / 2**20:.1f} '
                f'MiB, {megabytes:.1f} MiB are free. Earlier checkpoints are '
                'untouched: free some space and go on with --resume',
                str(path),
            ) from error


register_backend('mmaib.atomic', AtomicLocalBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, for trainings that are cut off.

    MMEngine's removes the old checkpoint before it writes the new one, and
    writes it under its final name: a kill or a full disk in between leaves
    no checkpoint at all. Here a checkpoint appears under its name once it is
    whole, and what is old goes after that. So there is room for one
    checkpoint more than ``max_keep_ckpts`` at times. Remote folders and
    ``backend_args`` of your own are written as MMEngine writes them.

    Over a frozen base model (``frozen='base'``) that came from a local
    ``load_from`` a checkpoint holds what was learned, and the path and hash
    of that file; loading it loads both.

    Args:
        args, kwargs: of MMEngine's ``CheckpointHook``.

    Raises:
        OSError: if a checkpoint cannot be written, naming the file, its
            size and the space that is left.
    """

    backend_args: dict | None

    def before_train(self, runner: Runner) -> None:
        folder = self.out_dir or runner.work_dir
        chosen = self.backend_args or self.file_client_args
        if not chosen and '://' not in str(folder):
            self.backend_args = dict(backend='mmaib.atomic')
        if self.max_keep_ckpts > 0:
            # MMEngine's removes those beyond that number now, by their names
            hub = runner.message_hub
            steps = hub.runtime_info.get('keep_ckpt_ids', [])
            named = {self.filename_tmpl.format(step): step for step in steps}
            hub.update_info('keep_ckpt_ids', [*named.values()])
        super().before_train(runner)
        model, path = unwrapped(runner.model), str(runner._load_from)
        if getattr(model, 'frozen', None) != 'base' or model.base_checkpoint:
            return
        if Path(path).is_file():
            model.base_checkpoint = BaseCheckpoint.of(path)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        super().before_save_checkpoint(runner, checkpoint)
        model = unwrapped(runner.model)
        base = getattr(model, 'base_checkpoint', None)
        if base:
            checkpoint['state_dict'] = learned(
                model, checkpoint['state_dict'], base
            )

    def _kept(self) -> set[str]:
        """What the names that are in use stand for: the same file may have
        another spelling in a checkpoint that is resumed."""
        names: list[Any] = [
            os.path.join(str(self.out_dir), self.filename_tmpl.format(step))
            for step in getattr(self, 'keep_ckpt_ids', ())
        ]
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        names += [getattr(self, 'best_ckpt_path', None), *best]
        return {os.path.realpath(name) for name in names if name}

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        with self._removing_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removing_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        """Carry out removals at the end, if all went well until there."""
        backend: Any = self.file_backend
        outdated: list[str] = []
        if 'remove' in vars(backend):  # the outer of two
            yield
            return
        with patch.object(backend, 'remove', outdated.append):
            yield
        kept = self._kept()
        for path in outdated:
            if os.path.realpath(path) not in kept:  # a name used again
                backend.remove(path)
