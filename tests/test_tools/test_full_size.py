"""The COCO configs at full size on real COCO images: R50, 80 classes,
1333x800, as they stand but for the length and the data."""

from pathlib import Path

import mmdet
import pytest
from support import REPOSITORY, shared_data
from support.detection import COCO

TOOLS = {
    'ours': REPOSITORY / 'tools',
    'mmdet': Path(mmdet.__file__).parent / '.mim' / 'tools',
}
ROOT = shared_data() / 'tiny_coco'
OPTIONS = [
    'model.backbone.init_cfg=None',  # no download of ImageNet weights
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=2',
    # After four steps nothing scores 0.05, and mmdet evaluates no boxes.
    'model.test_cfg.rcnn.score_thr=0.0',
    *(
        f'{loader}.dataset.data_root={ROOT}/'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ),
    *(
        f'{split}_evaluator.ann_file={ROOT}/annotations/instances_val2017.json'
        for split in ('val', 'test')
    ),
    'default_hooks.logger.interval=1',
]


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize('tools', TOOLS)
@pytest.mark.parametrize('name', ['aib', 'aib-qt'])
def test_coco_config_trains_and_evaluates(run, scalars, tmp_path, tools, name):
    run(
        TOOLS[tools] / 'train.py',
        COCO / f'{name}_faster-rcnn_r50_fpn_1x_coco.py',
        '--work-dir', tmp_path, '--cfg-options', *OPTIONS,
    )  # fmt: skip
    entries = scalars(tmp_path)
    steps = [entry for entry in entries if 'loss' in entry]
    assert len(steps) == 4
    names = {'loss_kl_cls', 'loss_kl_reg'}
    if name == 'aib-qt':
        names |= {'loss_vq', 'loss_commit'}
    for step in steps:
        assert {k for k in step if k.startswith('loss_')} == names | {
            'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox',
        }  # fmt: skip
    assert 'coco/bbox_mAP' in entries[-1]
