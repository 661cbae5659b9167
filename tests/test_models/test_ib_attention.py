"""`mmaib.IBAttention` as a plug-in of mmcv's, and `mmaib.AttendedBackbone`."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from support import base_models, loss, matrix

from mmaib.layers import MapDistribution, capture_attention
from mmaib.losses import collect
from mmaib.models import IBAttention
from mmaib.models.attended_backbone import token_grid
from mmaib.sampling.draws import Draws

IDENTITY = dict(modulation=dict(init='identity'))
GATE = dict(modulation=dict(type='mmaib.InformationGate', beta=0.02))
PLUGIN = dict(cfg=dict(type='mmaib.IBAttention', **IDENTITY), stages=(
    False, False, True, True), position='after_conv3')  # fmt: skip


def build(scope, **cfg):
    init_default_scope(scope)
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(scope) as registry:
        model = registry.build(copy.deepcopy(cfg))
    model.train()  # which does not return the model, in mmdet
    return model


def evaluated(model):
    model.eval()
    return model


def resnet(scope='mmdet', **fields):
    return build(scope, type='ResNet', depth=50, base_channels=4, **fields)


def ours_of(plain, model):
    """Load the plain backbone; the keys that are missing."""
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    return result.missing_keys


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_a_plugin_starts_as_the_backbone_and_learns(scope):
    plain, model = resnet(scope), resnet(scope, plugins=[PLUGIN])
    missing = ours_of(plain, model)
    assert missing
    assert all('.ib_attention.' in key for key in missing)
    x = torch.rand(2, 3, 64, 64)
    with collect() as aux, Draws(attention=1).open():
        got = model(x)
    assert all(map(torch.equal, got, plain(x)))
    layers = [m for m in model.modules() if isinstance(m, IBAttention)]
    assert len(layers) == 6 + 3  # a map a block
    assert 'attention_contrast' in aux.mean()
    sum(level.square().mean() for level in got).backward()
    assert all(layer.modulation.gate.grad.any() for layer in layers)
    with capture_attention(evaluated(model)) as maps:
        model(x)
    assert len(maps) == len(layers)


def plugged(with_cp=False, **fields):
    """A small RetinaNet's config with the gate in its last two stages."""
    cfg = base_models.config('RetinaNet')
    cfg.model.backbone.update(
        with_cp=with_cp,
        zero_init_residual=False,  # as trained: else a block's branch is 0
        plugins=[{**PLUGIN, 'cfg': dict(type='mmaib.IBAttention', **GATE)}],
    )
    cfg.model.update(type='mmaib.WithAuxLosses', base='RetinaNet', **fields)
    return cfg


def test_a_detector_with_plugins_trains():
    cfg = plugged()
    model = base_models.build(cfg)
    data = base_models.inputs(cfg)
    value, log = model.parse_losses(loss(model, data))
    assert {'loss_info', 'info_bits_per_image'} < log.keys()
    value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if 'ib_attention' in name:
            assert parameter.grad.any(), name
    assert matrix.answers(model, data)


def test_reentrant_checkpointing_of_its_block_is_refused():
    cfg = plugged(with_cp=True)
    with pytest.raises(RuntimeError, match='leave with_cp out.*Attended'):
        loss(base_models.build(cfg), base_models.inputs(cfg))


def test_outside_of_a_model_that_collects_it_is_refused():
    with pytest.raises(RuntimeError, match='IBAttention is trained inside'):
        IBAttention(8).train()(torch.rand(1, 8, 4, 4))


@pytest.mark.parametrize('field', ['train_draws', 'test_draws'])
def test_several_maps_inside_a_backbone_are_refused(field):
    with pytest.raises(ValueError, match=f'{field}.attention=2.*draws one'):
        base_models.build(plugged(**{field: dict(attention=2)}))


def test_channels_that_would_change_are_refused():
    with pytest.raises(ValueError, match="16 channels for 8.*'concat'"):
        IBAttention(8, modulation=dict(mode='concat'))


# Any backbone


def attended(scope, backbone, **fields):
    return build(
        scope, type='mmaib.AttendedBackbone', backbone=backbone, **fields
    )


SMALL = dict(type='ResNet', depth=50, base_channels=4)
VIT = dict(
    type='VisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=16
    ),
    img_size=64,
    patch_size=16,
)


@pytest.mark.parametrize(
    ('scope', 'backbone', 'at', 'channels', 'size'),
    [
        ('mmdet', SMALL, ['layer2', 'layer4'], [32, 128], (64, 96)),
        ('mmdet', SMALL, 'layer3', 64, (64, 96)),
        ('mmpretrain', SMALL, ['layer2', 'layer4.0'], [256, 1024], (64, 64)),
        ('mmpretrain', VIT, ['layers.0', 'layers.1'], 16, (64, 64)),
    ],
)
def test_it_starts_as_the_backbone_and_learns(
    scope, backbone, at, channels, size
):
    if 'layer4.0' in at:
        channels = [32, 128]
        backbone = dict(backbone, stem_channels=4)
    plain = build(scope, **backbone)
    model = attended(
        scope, backbone, at=at, in_channels=channels, bottleneck=IDENTITY
    )
    missing = ours_of(plain, model)
    assert missing
    assert all(key.startswith('ib_attention.') for key in missing)
    x = torch.rand(2, 3, *size)
    with collect(), Draws(attention=1).open():
        got = model(x)
    assert type(got) is tuple
    assert all(map(torch.equal, got, plain(x)))
    sum(level.square().mean() for level in got).backward()
    assert all(m.modulation.gate.grad.any() for m in model.ib_attention)
    for layer in model.ib_attention:
        layer.modulation.gate.data.fill_(0.5)
    pair = evaluated(model)(x), evaluated(plain)(x)
    assert not all(map(torch.equal, *pair))


def test_it_attends_the_patches_of_a_transformer_in_their_places():
    """A gate wide open but for one map position changes that patch alone."""
    vit = dict(VIT, img_size=(64, 32), out_type='featmap', final_norm=False)
    model = attended(
        'mmpretrain',
        vit,
        at='layers.2',
        in_channels=16,
        bottleneck=dict(modulation=dict(mode='scale')),
    )
    plain = build('mmpretrain', **vit)
    ours_of(plain, model)
    model.eval(), plain.eval()
    marked = torch.ones(1, 1, 4, 2)
    marked[0, 0, 3, 1] = 0
    model.ib_attention[0].attention.register_forward_hook(
        lambda *_: MapDistribution(marked)
    )
    x = torch.rand(1, 3, 64, 32)
    (got,), (expected,) = model(x), plain(x)
    assert torch.equal(got, expected * marked)


def test_behind_checkpointed_blocks_losses_keep_their_gradient():
    """As without checkpointing, gradients included."""
    found = []
    for with_cp in (False, True):
        cfg = base_models.config('RetinaNet')
        cfg.model.backbone = dict(
            type='mmaib.AttendedBackbone',
            backbone=dict(cfg.model.backbone, with_cp=with_cp),
            at='layer4',
            in_channels=256,
            bottleneck=GATE,
        )
        cfg.model.update(type='mmaib.WithAuxLosses', base='RetinaNet')
        model = base_models.build(cfg)
        losses = matrix.losses(model, base_models.inputs(cfg))
        model.parse_losses(losses)[0].backward()
        found.append(
            [
                losses['loss_info'].detach(),
                *(p.grad for p in model.backbone.ib_attention.parameters()),
            ]
        )
    assert all(map(torch.equal, *found))
    assert all(grad.any() for grad in found[0])


def test_copies_and_pickles_of_it_are_whole():
    model = evaluated(attended('mmdet', SMALL, at='layer4', in_channels=128))
    x = torch.rand(1, 3, 64, 64)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(copy.deepcopy(model)),
    ):
        assert type(other) is type(model)
        assert all(map(torch.equal, other(x), model(x)))


def initialised(attention):
    """A map in a backbone that initialises every layer that it finds."""
    model = attended(
        'mmseg',
        base_models.config('SegNeXt').model.backbone.to_dict(),
        at='norm4',
        in_channels=32,
        bottleneck=dict(attention=attention),
    )
    model.init_weights()
    return model.ib_attention[0].attention


def test_the_start_survives_a_backbone_that_initialises_every_layer():
    attention = initialised(dict(mean_bias=1.0))
    assert float(attention.mean_conv.bias) == 1
    assert not attention.std_conv.weight.any()
    rectangle = initialised(dict(type='mmaib.RectangularAttention'))
    assert not rectangle.mean.weight.any()


def test_what_a_checkpoint_says_of_its_map_stays(tmp_path):
    backbone = base_models.config('Faster R-CNN').model.backbone.to_dict()
    fields = dict(at='layer4', in_channels=64, bottleneck=dict())
    backbone.pop('init_cfg', None)
    trained = attended('mmdet', backbone, **fields)
    for parameter in trained.ib_attention.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / 'backbone.pth'
    torch.save(trained.state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = attended('mmdet', dict(backbone, init_cfg=init_cfg), **fields)
    model.init_weights()
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_an_init_cfg_of_the_map_counts():
    constant = dict(type='Constant', layer='Conv2d', val=0.25)
    attention = initialised(dict(init_cfg=constant))
    assert torch.all(attention.mean_conv.weight == 0.25)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(at='layer5', in_channels=8), "at='layer5'.*no module of that"),
        (
            dict(at=['bn1', 'relu'], in_channels=[8]),
            'at names 2 places.* 1 entries',
        ),
        (dict(at=['relu'] * 2, in_channels=4), 'at names a place twice'),
    ],
)
def test_a_place_that_is_not_there_is_told(fields, message):
    with pytest.raises(ValueError, match=message):
        attended('mmdet', SMALL, **fields)


def test_places_in_a_row_that_write_into_one_another_are_two():
    """A ReLU in place gives what it got, and yet another feature."""
    model = attended(
        'mmdet',
        SMALL,
        at=['bn1', 'relu'],
        in_channels=4,
        bottleneck=dict(modulation=dict(mode='scale')),
    )
    with torch.no_grad(), capture_attention(evaluated(model)) as maps:
        model(torch.rand(1, 3, 64, 64))
    assert len(maps) == 2


@pytest.mark.parametrize('at', [True, 3, None, ['layer1', 2]])
def test_a_place_is_a_name(at):
    with pytest.raises(TypeError, match='at must name a module, or list'):
        attended('mmdet', SMALL, at=at, in_channels=8)


def test_a_place_that_the_forward_does_not_reach_is_told():
    with pytest.raises(ValueError, match=r"at='layers': a list.*'layers\.0'"):
        attended('mmpretrain', VIT, at='layers', in_channels=16)
    model = evaluated(attended('mmdet', SMALL, at='layer1', in_channels=8))
    model.idle = torch.nn.Identity()
    model.at = ['idle']
    with pytest.raises(ValueError, match=r"at=\['idle'\]: .* does not call"):
        model(torch.rand(1, 3, 64, 64))


def test_a_backbone_that_leaves_patches_out_is_refused():
    mae = dict(VIT, type='MAEViT', mask_ratio=0.75)
    with pytest.raises(ValueError, match=r'MAEViT leaves out mask_ratio=0.75'):
        attended('mmpretrain', mae, at='layers.1', in_channels=16)


def test_the_weights_that_mmseg_hands_over_reach_the_backbone():
    with pytest.raises(AssertionError, match='init_cfg and pretrained'):
        attended(
            'mmseg',
            dict(type='ResNet', depth=18, init_cfg=dict(type='Constant')),
            at='layer4', in_channels=512, pretrained='weights.pth',
        )  # fmt: skip


@pytest.mark.parametrize(
    ('backbone', 'at', 'message'),
    [
        (dict(VIT, out_type='raw'), 'patch_embed', 'gives a tuple, not a map'),
        (VIT, 'layers.0.ffn.layers.0.0', '17 tokens.*after 5 extra'),
    ],
)
def test_a_module_without_a_map_is_told(backbone, at, message):
    model = evaluated(attended('mmpretrain', backbone, at=at, in_channels=16))
    model.num_extra_tokens = 5
    with pytest.raises(ValueError, match=message):
        model(torch.rand(1, 3, 64, 64))


def test_grids_of_tokens():
    assert token_grid(14 * 14 + 2, (224, 224)) == (2, (14, 14))
    assert token_grid(24 * 12, (384, 192), 0) == (0, (24, 12))
    with pytest.raises(ValueError, match='198 tokens.*after 1 extra'):
        token_grid(198, (224, 224), 1)
