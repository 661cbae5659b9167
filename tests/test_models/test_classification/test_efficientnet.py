import re

import torch
from mmengine.config import Config
from mmpretrain.models import EfficientNet
from support import CLASSIFICATION, REPOSITORY
from support import classification as cls

from mmaib.cli.cfg_options import options_of
from mmaib.models.classification import EfficientNetFeatures, EfficientNetHead


def test_both_halves_are_mmpretrains_efficientnet(tmp_path):
    """With one checkpoint, cut in front of the head convolution."""
    whole = EfficientNet('b0')
    whole.eval()
    for name, buffer in whole.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
    path = tmp_path / 'b0.pth'
    state = {f'backbone.{k}': v for k, v in whole.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    loaded = dict(type='Pretrained', checkpoint=str(path))
    features = EfficientNetFeatures(
        arch='b0', init_cfg=dict(loaded, prefix='backbone.')
    )
    head = EfficientNetHead(init_cfg=dict(loaded, prefix='backbone.layers.6.'))
    for part in (features, head):
        part.init_weights()
        part.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        inner = features(x)
        assert inner[0].shape == (1, features.out_channels, 2, 2)
        expected = whole(x)[0].mean((2, 3))
        torch.testing.assert_close(head(inner)[0], expected)


def small(path):
    """Without weights to download."""
    cfg = Config.fromfile(path)
    backbone = cfg.model.backbone
    backbone.get('backbone', backbone).pop('init_cfg')
    neck = cfg.model.neck
    neck.get('neck', neck).pop('init_cfg', None)
    return cls.build(cfg)


def test_the_other_reading_of_mobilenets_head():
    """docs/rectangles.md: 960 to 1280 with its dropout, then 512."""
    page = (REPOSITORY / 'docs' / 'rectangles.md').read_text()
    options = re.findall(r'model\.head\.\S+', page)
    cfg = Config.fromfile(
        CLASSIFICATION
        / 'oxford_pet'
        / 'mobilenetv3-large_1xb32-40e_pet-300x300.py'
    )
    cfg.merge_from_dict(options_of([o.strip('"') for o in options]))
    assert cfg.model.head.pop('init_cfg') == dict(
        cfg.model.backbone.pop('init_cfg'), prefix='head.'
    )
    head = cls.build(cfg).head
    widths = [
        m.out_features for m in head.modules() if hasattr(m, 'out_features')
    ]
    assert widths == [1280, 512, 37]
    assert [m.p for m in head.modules() if type(m).__name__ == 'Dropout'] == [
        0.2,
        0.2,
    ]


def test_the_pet_configs_train():
    folder = CLASSIFICATION / 'oxford_pet'
    paths = sorted(folder.glob('*.py'))
    assert len(paths) == 12
    for path in paths:
        model = small(path)
        losses = cls.loss(model, cls.inputs(2, 64, 37))
        model.parse_losses(losses)[0].backward()
        unused = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None
        ]
        assert not unused, path.stem
        assert ('loss_equivariance' in losses) == ('-equi-' in path.stem)
        if path.stem.startswith(('pw-', 'rect-')):
            channels = 960 if 'mobilenet' in path.stem else 320
            bottleneck = getattr(model.neck, 'bottleneck', None)
            if '-shallow-' in path.stem:
                channels = 112
                (bottleneck,) = model.backbone.ib_attention
            assert bottleneck.map_channels == channels
            rescaled = bottleneck.modulation.rescale
            assert rescaled == path.stem.startswith('rect-')
