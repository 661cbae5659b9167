"""What a config says is what the paper says, and nothing else is changed."""

import pytest
from mmengine.config import Config

from mmaib.testing import CONFIGS
from mmaib.testing.detection import COCO, aib_config, plain_config

ALL = sorted(
    path
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts
)


def unscoped(value):
    """Without the `_scope_` that MMEngine marks an inherited config with."""
    if isinstance(value, dict):
        return {k: unscoped(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [unscoped(v) for v in value]
    return value


@pytest.mark.parametrize('path', ALL, ids=lambda path: path.stem)
def test_parses_with_the_fields_of_a_training(path):
    cfg = Config.fromfile(path)
    for field in ('model', 'optim_wrapper', 'train_cfg', 'val_evaluator'):
        assert field in cfg


@pytest.mark.parametrize('name', ['aib', 'aib-qt'])
def test_the_coco_configs_change_nothing_but_the_model(name):
    plain, ours = (
        Config(unscoped(cfg.to_dict()))
        for cfg in (plain_config(), aib_config(name))
    )
    assert set(ours) - set(plain) == {'custom_imports', 'randomness'}
    for field, value in plain.items():
        if field != 'model':
            assert ours[field] == value, field
    for part in ('backbone', 'rpn_head', 'train_cfg', 'test_cfg'):
        assert ours.model[part] == plain.model[part]
    assert ours.model.neck.neck == plain.model.neck


def test_the_papers_numbers():
    model = aib_config('aib-qt').model
    assert model.test_draws == dict(attention=4, latent=1, seed=0)
    assert model.roi_head.bbox_head.beta == 0.01
    bottleneck = model.neck.bottleneck
    assert bottleneck.quantizer == dict(
        num_anchors=20, vq_weight=0.4, commit_weight=0.1
    )
    assert bottleneck.attention == dict(std_source='feature', std_kernel=1)
    assert bottleneck.modulation.mode == 'scale_residual'
    assert aib_config('aib').model.neck.bottleneck.quantizer is None


def test_the_whole_method_shows_in_thirty_lines():
    path = COCO / 'aib-qt_faster-rcnn_r50_fpn_1x_coco.py'
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize('data', ['trees', 'bccd'])
def test_arms_of_a_comparison_see_the_data_in_the_same_order(data):
    """`diff_rank_seed` changes the sampler's seed."""
    arms = [
        Config.fromfile(path).randomness
        for path in CONFIGS.glob(f'sample/*{data}*.py')
    ]
    assert len(arms) == 3
    assert arms[0] == arms[1] == arms[2]
