"""`mmaib wrap` of a model that stands inside another."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.testing import demo_mm_inputs, demo_track_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from support import base_models, matrix
from support.two_ranks import ADAM

import mmaib
from mmaib.cli.wrap import WrapError, wrap
from mmaib.explanations import Settings
from mmaib.hooks import AttentionEvalHook
from mmaib.layers import capture_attention

SMALL = (64, 64)
SOFT_TEACHER = (
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_'
    'semi-0.1-coco.py'
)
QDTRACK = (
    'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_'
    'test-mot17halfval.py'
)


def shrunk(name):
    changes = {'detector.backbone.base_channels': 8}
    if name == QDTRACK:
        changes['track_head.embed_head.in_channels'] = 32
    base = base_models.BaseModel(name, changes)
    base_models.register_config_sources()
    whole = base_models.get_config(name)
    model = base_models.shrunk(copy.deepcopy(whole.model), base)
    return Config(dict(model=model, default_scope='mmdet'))


@pytest.fixture
def wrapped(tmp_path):
    """The model that is written over a small one, and its config."""

    def make(cfg, **options):
        (tmp_path / 'original.py').write_text(cfg.pretty_text)
        out = tmp_path / 'out.py'
        lines = wrap(str(tmp_path / 'original.py'), out, size=SMALL, **options)
        written = Config.fromfile(out)
        return base_models.build(written), written, lines

    return make


def branches():
    """A labelled batch, and one that teacher and student see."""
    batches = {}
    for name in ('sup', 'unsup_teacher', 'unsup_student'):
        data = demo_mm_inputs(2, [(3, 64, 64)] * 2)
        for sample in data['data_samples']:
            sample.set_metainfo(
                dict(homography_matrix=np.eye(3, dtype='float32'))
            )
        batches[name] = data
    return dict(
        inputs={k: v['inputs'] for k, v in batches.items()},
        data_samples={k: v['data_samples'] for k, v in batches.items()},
    )


def moves(model, data, steps=2):
    """Losses of the last step, in which every parameter of mmaib's that is
    trained has moved, and no other one of a teacher."""
    before = {k: v.clone() for k, v in model.named_parameters()}
    wrapper = build_optim_wrapper(model, ADAM)
    for _ in range(steps):
        model.train()
        log = model.train_step(copy.deepcopy(data), wrapper)
        assert all(torch.isfinite(v).all() for v in log.values()), log
    for key, value in model.named_parameters():
        if key.startswith('teacher'):
            assert torch.equal(value, before[key]), key
        elif matrix.is_ours(model, key):
            assert not torch.equal(value, before[key]), key
    return log


def test_a_student_learns_and_its_teacher_is_silent(wrapped):
    model, written, lines = wrapped(shrunk(SOFT_TEACHER))
    assert any('model.detector.neck: gate after FPN' in x for x in lines)
    assert written.model.base == 'SoftTeacher'
    # scores of an untrained teacher are low, and would leave no box
    model.semi_train_cfg.pseudo_label_initial_score_thr = 0.0
    log = moves(matrix.trained(model), branches())
    assert not model.teacher.training
    # of the labelled batch by the student's loss, of the other outside it
    assert log['sup_loss_info'] > 0
    assert log['loss_info'] > 0


def test_a_tracker_learns_and_tracks(wrapped):
    model, written, _ = wrapped(shrunk(QDTRACK))
    assert written.model.detector.type == 'mmaib.AIBFasterRCNN'
    data = demo_track_inputs(
        batch_size=1, num_frames=2, key_frames_inds=[0],
        image_shapes=[(3, 64, 64)], num_items=[2], num_classes=1,
    )  # fmt: skip
    assert moves(matrix.trained(model), data)['loss_info'] > 0


def explained(detector):
    """What the first detection of a detector inside another model rests on."""
    base_models.init_default_scope('mmdet')
    image = np.random.default_rng(0).integers(
        0, 255, (*SMALL, 3), dtype=np.uint8
    )
    detector.cfg = base_models.get_config(
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    )
    detector.cfg.test_dataloader.dataset.pipeline[1].scale = SMALL
    (found,) = mmaib.explain(
        detector, image, score_thr=0.0, at_most=1, settings=Settings(steps=2)
    )
    return found


def test_a_semi_supervised_detector_is_evaluated_and_explained(
    wrapped, new_runner
):
    model = matrix.trained(wrapped(shrunk(SOFT_TEACHER))[0])
    data = demo_mm_inputs(2, [(3, 64, 64)] * 2)
    runner = new_runner(model, data, [AttentionEvalHook()])
    assert 0 <= runner.val()['attention/auc'] <= 1
    with pytest.raises(ValueError, match=r'model\.student or model\.teacher'):
        mmaib.explain(model, 'image.png')
    assert np.isfinite(explained(model.teacher).bits).all()


def test_a_tracker_is_evaluated_and_explained(wrapped):
    model = matrix.trained(wrapped(shrunk(QDTRACK))[0]).eval()
    data = demo_track_inputs(
        batch_size=1, num_frames=3, key_frames_inds=[0],
        image_shapes=[(3, 64, 64)], num_items=[2], num_classes=1,
    )  # fmt: skip
    with capture_attention(model) as maps, torch.no_grad():
        (found,) = model.test_step(data)
    assert 'pred_track_instances' in found[0]
    assert maps
    detector = model.detector
    detector.data_preprocessor = MODELS.build(
        base_models.config('Faster R-CNN').model.data_preprocessor
    )
    assert np.isfinite(explained(detector).bits).all()


def test_test_time_augmentation_around_a_model(wrapped):
    cfg = base_models.config('RetinaNet')
    cfg.model = dict(type='DetTTAModel', module=cfg.model, tta_cfg=dict())
    _, written, lines = wrapped(cfg)
    assert written.model.type == 'DetTTAModel'
    assert written.model.module.type == 'mmaib.WithAuxLosses'
    assert any('model.module.neck: gate after FPN' in x for x in lines)


@pytest.mark.parametrize(
    'name',
    ['mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py',
     'mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py'],
)  # fmt: skip
def test_a_student_of_a_teacher_that_is_not_fetched(name, tmp_path):
    wrap(name, tmp_path / 'out.py', size=SMALL)
    written = Config.fromfile(tmp_path / 'out.py')
    assert written.model.neck.type == 'mmaib.AIBNeck'
    assert 'http' in written.model.teacher_ckpt


def test_a_field_that_has_no_model(tmp_path):
    out = Path(tmp_path, 'out.py')
    with pytest.raises(
        WrapError, match=r"--inside neck: .*there are \['detector'\]"
    ):
        wrap(SOFT_TEACHER, out, inside='neck')
    with pytest.raises(WrapError, match='readout: SoftTeacher trains more'):
        wrap(SOFT_TEACHER, out, 'readout')
    assert not out.exists()
