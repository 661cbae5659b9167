import pytest
from mmengine.config import Config

from mmaib.reliability import launch
from mmaib.testing.detection import COCO


def test_a_config_whose_host_is_missing(monkeypatch):
    """Every config of ours has a host's as its base, so parsing comes first
    to know."""
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda name: False
    )
    args = launch.argument_parser(None).parse_args(
        [str(COCO / 'aib_faster-rcnn_r50_fpn_1x_coco.py')]
    )
    with pytest.raises(
        ModuleNotFoundError, match='mmdet is not installed: pip install'
    ):
        launch.load_config(args)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            dict(runner_type='FlexibleRunner'),
            "runner_type='FlexibleRunner'.*tools need",
        ),
        (
            dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
            r'model_wrapper_cfg\.type=.MMFully.*the shard of rank 0',
        ),
    ],
)
def test_runners_that_shard_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        launch.build_runner(Config(fields), ())
