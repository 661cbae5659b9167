"""The sample configs, trained in bfloat16 on a CPU by `tools/train.py`."""

from zipfile import ZipFile

import numpy as np
import pytest
from support import CONFIGS, DIGITS, NO_WORKERS, REPOSITORY, shared_data
from support import segmentation as seg

STEPS = 200
# mmengine and mmcv autocast on a GPU alone: the wrapper is not to be had
# without one, and the NMS has no bfloat16. So the one is told of a GPU, and
# the other wants float32, as the ops of torchvision do.
LAUNCHER = f"""
import runpy, sys
import torch
from mmcv.ops import nms
from mmengine.optim.optimizer import amp_optimizer_wrapper

amp_optimizer_wrapper.is_cuda_available = lambda: True
operator = sys.modules[nms.__module__].NMSop
operator.forward = staticmethod(
    torch.amp.custom_fwd(
        operator.forward, device_type='cpu', cast_inputs=torch.float32
    )
)
dtypes = set()
torch.nn.modules.module.register_module_forward_hook(
    lambda module, inputs, out: dtypes.add(getattr(out, 'dtype', None))
)
runpy.run_path({str(REPOSITORY / 'tools' / 'train.py')!r}, run_name='__main__')
assert torch.bfloat16 in dtypes
"""
SHORT = [
    # what --amp sets, which a CPU is refused
    'optim_wrapper.type=AmpOptimWrapper',
    'optim_wrapper.loss_scale=dynamic',
    'optim_wrapper.dtype=bfloat16',
    'train_dataloader.batch_size=2',
    *NO_WORKERS,
    'val_dataloader.dataset.indices=2',
    'default_hooks.logger.interval=1',
]
DETECTION = [
    'train_cfg.max_epochs=10',
    'train_cfg.val_interval=10',
    'train_dataloader.dataset.indices=40',
    # mmcv's RoIAlign has no bfloat16 either
    'model.roi_head.bbox_roi_extractor.roi_layer.use_torchvision=True',
]
SEGMENTATION = [
    f'train_cfg.max_iters={STEPS}',
    f'train_cfg.val_interval={STEPS}',
    'model.data_preprocessor.size=(128,128)',
]
CLASSIFICATION = [
    'optim_wrapper.type=AmpOptimWrapper',
    'optim_wrapper.loss_scale=dynamic',
    'optim_wrapper.dtype=bfloat16',
    'train_dataloader.batch_size=8',
    'train_dataloader.dataset.indices=160',
    'val_dataloader.dataset.indices=20',
    'train_cfg.max_epochs=10',
    'train_cfg.val_interval=10',
    'default_hooks.logger.interval=1',
]
REAL = ('bccd', 'camvid', 'cifar10')


def options(config):
    """A short training on images of 128 pixels, or CIFAR's 32."""
    if 'cifar10' in config.stem:
        return CLASSIFICATION
    task, transform, field = (
        (DETECTION, 'Resize', 'scale')
        if 'faster-rcnn' in config.stem
        else (SEGMENTATION, 'RandomCrop', 'crop_size')
    )
    pipeline = seg.config(config).train_dataloader.dataset.pipeline
    index = [step.type for step in pipeline].index(transform)
    smaller = f'train_dataloader.dataset.pipeline.{index}.{field}=(128,128)'
    return [*SHORT, *task, smaller]


def test_half_precision_without_a_gpu_is_refused(run, tmp_path):
    config = DIGITS
    out = run(
        REPOSITORY / 'tools' / 'train.py', config, '--work-dir', tmp_path,
        '--amp', check=False,
    )  # fmt: skip
    assert '--amp needs a GPU' in out


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.shared_data]
            * any(name in path.stem for name in REAL),
        )
        for path in sorted((CONFIGS / 'sample').rglob('*.py'))
    ],
)
def test_200_steps_in_bfloat16_stay_finite(
    run, scalars, data, tmp_path, config
):
    launcher = tmp_path / 'train_on_a_cpu.py'
    launcher.write_text(LAUNCHER)
    if 'cifar10' in config.stem:
        data = tmp_path
        with ZipFile(shared_data() / 'cifar10' / 'cifar10_subset.zip') as file:
            file.extractall(data / 'cifar10_subset')
    elif any(name in config.stem for name in REAL):
        data = shared_data()
    run(
        launcher, config, '--work-dir', tmp_path / 'work',
        '--cfg-options', *options(config),
        data_root=data,
    )  # fmt: skip
    steps = [entry for entry in scalars(tmp_path / 'work') if 'loss' in entry]
    assert len(steps) == STEPS
    for number, entry in enumerate(steps):
        for name, value in entry.items():
            assert np.isfinite(value), (number, name)
