"""The networks of Tables 1 and 4 of [AIB], layer by layer."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from support import classification as cls
from torch import nn

from mmaib.layers import MapDistribution
from mmaib.models.classification import (
    ResNetStage,
    VGGBlocks,
    WideResNetBlocks,
)
from mmaib.models.classification.blocks import PreActivationBlock


def count(module):
    return sum(p.numel() for p in module.parameters())


def vgg_convs(*widths):
    """3x3 convolutions with batch norm, without bias."""
    return sum(9 * a * b + 2 * b for a, b in pairwise(widths))


def fc(inputs, outputs):
    return inputs * outputs + outputs


BLOCK3 = (
    # first unit: norm, conv, norm, conv, shortcut; then three units
    2 * 320 + 9 * 320 * 640 + 2 * 640 + 9 * 640 * 640 + 320 * 640
) + 3 * (2 * (2 * 640 + 9 * 640 * 640))
BLOCK4 = (
    # three bottlenecks of width 1024, 2048 channels, each conv with its norm
    (1024 * 1024 + 9 * 1024 * 1024 + 1024 * 2048 + 2 * (1024 + 1024 + 2048))
    + (1024 * 2048 + 2 * 2048)
    + 2 * (2048 * 1024 + 9 * 1024 * 1024 + 1024 * 2048
           + 2 * (1024 + 1024 + 2048))
)  # fmt: skip
VGG16_CONVS = sum(
    9 * a * b + b
    for a, b in zip(
        (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
        (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
    )
)

# Output of one image and parameters of each part that the tables name.
TABLES = {
    ('vgg16', 'cifar10', 32): {
        'backbone.blocks.0': ((64, 32, 32), vgg_convs(3, 64, 64)),
        'backbone.blocks.1': ((128, 32, 32), vgg_convs(64, 128, 128)),
        'backbone.blocks.2': ((256, 16, 16), vgg_convs(128, 256, 256, 256)),
        'neck.bottleneck.attention.mean_conv': ((1, 16, 16), 9 * 256 + 1),
        'neck.bottleneck.attention.std_conv': ((1, 16, 16), 9 * 256 + 1),
        'neck.neck.blocks.0': ((512, 8, 8), vgg_convs(256, 512, 512, 512)),
        'neck.neck.blocks.1': ((512, 4, 4), vgg_convs(512, 512, 512, 512)),
        # block 6, which Table 1 leaves out
        'neck.neck.blocks.2': ((512, 2, 2), vgg_convs(512, 512)),
        'neck.neck.blocks.3': ((512, 1, 1), vgg_convs(512, 512)),
        'neck.neck.blocks.4': ((512, 1, 1), fc(512, 512)),
        'head.fc_mean': ((256,), fc(512, 256)),
        'head.encoder.std': ((256,), fc(512, 256)),
        'head.hidden': ((256,), fc(256, 256)),
        'head.fc': ((10,), fc(256, 10)),
    },
    ('wrn28-10', 'cifar10', 32): {
        'backbone.blocks.0': ((16, 32, 32), 9 * 3 * 16),
        'backbone.blocks.1': ((160, 32, 32), 1640672),
        'backbone.blocks.2': ((320, 16, 16), 6968000),
        'neck.bottleneck.attention.mean_trunk': ((640, 16, 16), BLOCK3),
        'neck.bottleneck.attention.mean_conv': ((1, 16, 16), 9 * 640 + 1),
        'neck.bottleneck.attention.std_conv': ((1, 16, 16), 9 * 320 + 1),
        'neck.neck': ((640, 8, 8), BLOCK3 + 2 * 640),
        'head.pool': ((640, 1, 1), 0),
        'head.fc_mean': ((256,), fc(640, 256)),
        'head.encoder.std': ((256,), fc(640, 256)),
        'head.hidden': ((256,), 0),
        'head.fc': ((10,), fc(256, 10)),
    },
    ('vgg16', 'cub-224x224', 224): {
        'backbone': ((512, 14, 14), VGG16_CONVS),
        'neck.bottleneck.attention.mean_conv': ((1, 14, 14), 9 * 512 + 1),
        'neck.bottleneck.attention.std_conv': ((1, 14, 14), 9 * 512 + 1),
        'head.pool': ((512, 1, 1), 0),
        'head.fc_mean': ((256,), fc(512, 256)),
        'head.encoder.std': ((256,), fc(512, 256)),
        'head.hidden': ((256,), fc(256, 256)),
        'head.fc': ((200,), fc(256, 200)),
    },
    ('wrn50-2', 'cub-224x224', 224): {
        'backbone.layer1': ((256, 56, 56), None),
        'backbone.layer2': ((512, 28, 28), None),
        # torchvision's wide_resnet50_2 without layer4 and fc
        'backbone': ((1024, 14, 14), 68883240 - BLOCK4 - fc(2048, 1000)),
        'neck.bottleneck.attention.mean_trunk': ((2048, 14, 14), BLOCK4),
        'neck.bottleneck.attention.mean_conv': ((1, 14, 14), 9 * 2048 + 1),
        'neck.bottleneck.attention.std_conv': ((1, 14, 14), 9 * 1024 + 1),
        'neck.neck': ((2048, 7, 7), BLOCK4),
        'head.pool': ((2048, 1, 1), 0),
        'head.fc_mean': ((256,), fc(2048, 256)),
        'head.encoder.std': ((256,), fc(2048, 256)),
        'head.hidden': ((256,), fc(256, 256)),
        'head.fc': ((200,), fc(256, 200)),
    },
}


def bare(cfg):
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model)


def shapes_of(model, size):
    """Output of each module for one image, without the batch."""
    shapes = {}

    def remember(name, out):
        if isinstance(out, MapDistribution):
            out = out.mean
        out = out if isinstance(out, torch.Tensor) else out[-1]
        shapes[name] = tuple(out.shape[1:])

    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, out, name=name: remember(name, out)
        )
    model.eval().test_draws = dict(attention=1, latent=1, seed=0)
    with torch.no_grad():
        model.predict(torch.rand(1, 3, size, size))
    return shapes


@pytest.mark.parametrize('variant', ['aib', 'aib-qt'])
@pytest.mark.parametrize('table', TABLES, ids=lambda table: table[0])
def test_layer_by_layer(table, variant):
    backbone, data, size = table
    model = bare(cls.config(f'{backbone}-{variant}', data))
    shapes = shapes_of(model, size)
    modules = dict(model.named_modules())
    for name, (shape, parameters) in TABLES[table].items():
        assert shapes[name] == shape, name
        if parameters is not None:
            assert count(modules[name]) == parameters, name
    anchors = 50 if backbone.startswith('wrn') else 20
    quantizer = model.neck.bottleneck.quantizer
    if variant == 'aib':
        assert quantizer is None
    else:
        assert count(quantizer) == anchors
    named = {n for n, (_, p) in TABLES[table].items() if p}
    whole = sum(
        count(modules[n])
        for n in named
        if not any(n.startswith(f'{other}.') for other in named)
    )
    rest = anchors if variant == 'aib-qt' else 0
    assert count(model) == whole + rest


def test_the_plain_networks_have_their_published_size():
    """36,479,194 parameters are WRN-28-10's; 68,883,240 torchvision's
    wide_resnet50_2."""
    assert count(bare(cls.config('wrn28-10'))) == 36479194
    wide = bare(cls.config('wrn50-2', 'cub-224x224'))
    assert count(wide.backbone) == 68883240 - fc(2048, 1000)
    vgg = bare(cls.config('vgg16', 'cub-224x224'))
    assert count(vgg.backbone) == VGG16_CONVS


@pytest.mark.parametrize('name', ['vgg16', 'wrn28-10'])
def test_the_cut_network_is_the_plain_one(name):
    """Features and encoder in a row, with the plain network's weights, give
    the plain network's features."""
    plain = bare(cls.shrink(cls.config(name)))
    cut = bare(cls.shrink(cls.config(f'{name}-aib')))
    halves = [*cut.backbone.blocks, *cut.neck.neck.blocks]
    for mine, theirs in zip(halves, plain.backbone.blocks, strict=True):
        mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    features = cut.neck.neck(cut.backbone(x))
    assert torch.equal(features[-1], plain.backbone(x)[-1])


@pytest.mark.parametrize(('channels', 'stride'), [(8, 1), (12, 1), (8, 2)])
def test_a_pre_activation_block_is_zagoruykos(channels, stride):
    """Against the block written out: the shortcut starts behind norm and
    ReLU where the shape changes, at x where it does not."""
    torch.manual_seed(0)
    block = PreActivationBlock(8, channels, stride)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    x = torch.randn(3, 8, 6, 6)

    def activated(x, norm):
        return F.batch_norm(
            x, None, None, norm.weight, norm.bias, training=True
        ).relu()

    a = activated(x, block.activate[0])
    out = F.conv2d(a, block.conv1.weight, stride=stride, padding=1)
    out = activated(out, block.conv2.bn)
    out = F.conv2d(out, block.conv2.conv.weight, padding=1)
    if (channels, stride) == (8, 1):
        expected = x + out
    else:
        expected = out + F.conv2d(a, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), expected)


def test_scores_of_the_released_map():
    """Block, norm, 1x1 convolution, norm, ReLU; dropout in the block."""
    torch.manual_seed(0)
    plain = WideResNetBlocks((8,), (1,), depth=1, in_channels=4)
    scored = WideResNetBlocks(
        (8,), (1,), depth=1, in_channels=4, last_conv=3, dropout=0.5
    )
    plain.load_state_dict(scored.state_dict(), strict=False)
    x = torch.randn(5, 4, 6, 6)
    before = plain.eval()(x)[0]
    norm, conv = scored.blocks[-1]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = F.batch_norm(
        before, norm.running_mean, norm.running_var, norm.weight, norm.bias
    )
    expected = F.conv2d(expected, conv.conv.weight)
    expected = F.batch_norm(
        expected, conv.bn.running_mean, conv.bn.running_var
    ).relu()
    assert scored.out_channels == 3
    torch.testing.assert_close(scored.eval()(x)[0], expected)
    scored.train()
    scored.blocks[-1].eval()
    assert not torch.equal(scored(x)[0], scored(x)[0])


def test_a_stage_starts_from_a_resnets_weights(tmp_path):
    init_default_scope('mmpretrain')
    resnet = MODELS.build(dict(type='ResNet', depth=50, base_channels=8))
    state = {f'backbone.{k}': v for k, v in resnet.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'resnet.pth')
    stage = ResNetStage(
        128, 256, num_blocks=3, init_cfg=dict(
            type='Pretrained', checkpoint=str(tmp_path / 'resnet.pth'),
            prefix='backbone.layer4'),
    )  # fmt: skip
    stage.init_weights()
    for name, value in resnet.layer4.state_dict().items():
        assert torch.equal(stage.state_dict()[name], value), name
    x = torch.randn(2, 128, 8, 8)
    assert torch.equal(stage.eval()((x,))[0], resnet.layer4.eval()(x))


@pytest.mark.parametrize(
    ('cls', 'fields'),
    [
        (VGGBlocks, dict(channels=(8, 8), depths=(1,), pools=(True, True))),
        (VGGBlocks, dict(channels=(), depths=(), pools=())),
        (VGGBlocks, dict(channels=8, depths=1, pools=True)),
        (WideResNetBlocks, dict(channels=(8, 8), strides=(1,))),
    ],
)
def test_fields_of_different_length(cls, fields):
    with pytest.raises(ValueError, match='one entry a block'):
        cls(**fields)


def test_a_block_without_a_layer():
    with pytest.raises(ValueError, match='depths must be >= 1, got 0'):
        VGGBlocks(channels=(8, 8), depths=(1, 0), pools=(True, True))
    with pytest.raises(ValueError, match='depth must be >= 1, got 0'):
        WideResNetBlocks(channels=(8,), strides=(1,), depth=0)


def test_every_convolution_of_wide_resnet_starts_alike():
    blocks = WideResNetBlocks((64,), (1,), depth=1, in_channels=32)
    blocks.init_weights()
    for conv in (m for m in blocks.modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx(
            (2 / fan_out) ** 0.5, rel=0.1
        )
