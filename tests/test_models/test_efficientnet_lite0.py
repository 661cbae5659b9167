import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from skimage import data as photographs

from mmaib.models import EfficientNetLite0
from mmaib.models.efficientnet_lite0 import load_imagenet_weights


def coffee():
    """scikit-image's photograph of an espresso, as the network expects it."""
    image = torch.from_numpy(photographs.coffee()).float()
    image = image.permute(2, 0, 1)[None]
    image = image[..., 100:500]  # the cup
    image = torch.nn.functional.interpolate(
        image, size=(224, 224), mode='bilinear', antialias=True
    )
    return (image - 127) / 128


def test_a_known_photograph_gets_its_imagenet_class():
    model = timm.create_model('tf_efficientnet_lite0').eval()
    load_imagenet_weights(model)
    with torch.no_grad():
        scores = model(coffee()).softmax(1)[0]
    assert int(scores.argmax()) == 967  # espresso
    assert scores.max() > 0.5


def test_the_backbone_carries_the_same_features():
    init_default_scope('mmdet')
    whole = timm.create_model('tf_efficientnet_lite0').eval()
    load_imagenet_weights(whole)
    backbone = EfficientNetLite0()
    backbone.init_weights()
    backbone.eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outs = backbone(x)
        expected = whole.blocks(whole.bn1(whole.conv_stem(x)))
    assert [tuple(o.shape[1:]) for o in outs] == [
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert torch.allclose(outs[-1], expected, atol=1e-5)


def test_training_keeps_batchnorm_and_frozen_stages():
    init_default_scope('mmdet')
    backbone = EfficientNetLite0(frozen_stages=2).train()
    norms = [
        m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)
    ]
    assert not any(m.training for m in norms)
    model = backbone.body.timm_model
    frozen = [model.conv_stem, model.bn1, model.blocks[0], model.blocks[1]]
    assert not any(p.requires_grad for m in frozen for p in m.parameters())
    assert all(p.requires_grad for p in model.blocks[2].parameters())


def test_another_networks_shapes_are_refused():
    model = timm.create_model('tf_efficientnet_lite1')
    with pytest.raises(ValueError, match='has shape'):
        load_imagenet_weights(model)
