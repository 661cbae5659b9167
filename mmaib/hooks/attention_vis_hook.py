from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import mmcv
import mmengine
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmaib.checks import at_least
from mmaib.layers import CapturedMap, capture_attention
from mmaib.models.wrapping import unwrapped
from mmaib.registry import HOOKS


@HOOKS.register_module()
class AttentionVisHook(Hook):
    """Draw attention maps during validation and testing.

    Every ``interval`` iterations the first image of the batch goes, beside
    its maps with the outlines of those that are rectangles, its predictions
    and, where they have them, maps of their uncertainty, to the Visualizer's
    back ends (files, TensorBoard, W&B) as ``attention_NAME``. Nothing is
    drawn of test-time augmentation.

    Args:
        interval: iterations between two pictures.
        score_thr: detections below are not drawn.
        backend_args: how to read images, see MMEngine.

    Raises:
        ValueError: if ``interval`` is below 1.
    """

    def __init__(
        self,
        interval: int = 50,
        score_thr: float = 0.3,
        backend_args: dict | None = None,
    ) -> None:
        self.interval = at_least('interval', interval, 1)
        self.score_thr = score_thr
        self.backend_args = backend_args
        self._capture: ExitStack | None = None
        self._maps: list[CapturedMap] = []

    def _before_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        mode: str = 'train',
    ) -> None:
        # Visualizers work on the main process alone.
        due = mode != 'train' and batch_idx % self.interval == 0
        model = unwrapped(runner.model)
        # Maps of flipped and scaled images do not lie on each other.
        due = due and not isinstance(model, BaseTTAModel)
        if due and is_main_process():
            self._capture = ExitStack()
            self._maps = self._capture.enter_context(capture_attention(model))

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | dict | None = None,
        mode: str = 'train',
    ) -> None:
        if self._capture is None:
            return
        self._capture.close()
        self._capture = None
        from mmaib.evaluation.map_geometry import whole_maps
        from mmaib.visualization.overlays import (
            classifier_input,
            is_classified,
            picture,
            uncertainty_maps,
        )

        if not outputs or not (self._maps or uncertainty_maps(outputs[0])):
            return
        sample, model = outputs[0], unwrapped(runner.model)
        maps = whole_maps(model, self._maps, sample.metainfo)
        # arrays have a number in their data set, but no file
        number = sample.get('sample_idx', batch_idx)
        path = sample.get('img_path') or f'sample_{number}'
        if is_classified(sample):
            image, sample = classifier_input(
                model, data_batch['inputs'], sample
            )
        else:
            content = mmengine.fileio.get(path, self.backend_args)
            image = mmcv.imfrombytes(content, channel_order='rgb')
        visualizer = Visualizer.get_current_instance()
        drawn = picture(
            visualizer, maps, image, sample, score_thr=self.score_thr
        )
        name = osp.splitext(osp.basename(path))[0]
        # Not runner.iter: where nothing was trained it builds the training's
        # loop, here on the main process alone, and the others wait for it.
        step = runner.message_hub.get_info('iter', batch_idx)
        visualizer.add_image(f'attention_{name}', drawn, step=step)
