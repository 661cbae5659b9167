"""`mmaib.WithLatent`; the matrix trains it in every base model that takes
it."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from support import base_models, matrix
from torch.distributions import Normal, kl_divergence

from mmaib.losses import collect
from mmaib.models.with_latent import with_latent
from mmaib.sampling.draws import Draws

FCN = dict(
    in_channels=8,
    channels=6,
    num_classes=3,
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.1,
)


def build(scope, **cfg):
    init_default_scope(scope)
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.build(copy.deepcopy(cfg))


def fcn(**latent):
    return build(
        'mmseg', type='mmaib.WithLatent', base='FCNHead', latent=latent, **FCN
    )


def test_at_the_mean_it_is_the_base_model_and_its_weights_load():
    plain = build('mmseg', type='FCNHead', **FCN).eval()
    head = fcn().eval()
    loaded = head.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert {*loaded.missing_keys} == {
        'latents.all.std.weight',
        'latents.all.std.bias',
    }
    x = [torch.rand(2, 8, 5, 5)]
    assert torch.equal(head(x), plain(x))


def test_its_latent_and_kl_are_of_the_feature_in_front_of_the_predictor():
    head = fcn(beta=0.5, std_shift=0.0).train()
    head.dropout.p = 0.0
    seen = []
    head.conv_seg.register_forward_pre_hook(lambda _, args: seen.append(args))
    x = [torch.rand(2, 8, 5, 5)]
    with collect() as aux, Draws(latent=1).open():
        torch.manual_seed(3)
        head(x)
    mean = head._forward_feature(x)
    std = torch.nn.functional.softplus(torch.zeros_like(mean))
    torch.manual_seed(3)
    z = mean + std * torch.randn(mean.shape)
    ((got,),) = seen
    assert torch.allclose(got, z, atol=1e-3)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean()
    assert torch.allclose(aux.mean()['loss_kl'], 0.5 * expected, rtol=1e-3)


@pytest.mark.parametrize(
    'name', ['RetinaNet', 'ATSS', 'FCOS', 'GFL', 'ResNet', 'SegFormer']
)
def test_the_std_starts_at_zero_whatever_the_head_initialises(name):
    cfg = base_models.config(name)
    head = 'decode_head' if 'decode_head' in cfg.model else (
        'bbox_head' if 'bbox_head' in cfg.model else 'head'
    )  # fmt: skip
    fields = cfg.model[head]
    fields.update(type='mmaib.WithLatent', base=fields.type)
    fields.latent = dict(beta=0.1)
    model = base_models.build(cfg)
    model.init_weights()
    encoders = model.get_submodule(head).latents.values()
    assert encoders
    for encoder in encoders:
        assert not encoder.std.weight.any()
        assert not encoder.std.bias.any()


def test_the_two_branches_of_a_dense_detector_have_a_kl_each():
    cfg = base_models.config('RetinaNet')
    cfg.model.update(type='mmaib.WithAuxLosses', base='RetinaNet')
    cfg.model.bbox_head.update(
        type='mmaib.WithLatent', base='RetinaHead', latent=dict(beta=1.0)
    )
    model = base_models.build(cfg)
    losses = matrix.losses(model, base_models.inputs(cfg))
    assert losses['loss_kl_cls'] > 0 < losses['loss_kl_reg']
    model.parse_losses(losses)[0].backward()
    for encoder in model.bbox_head.latents.values():
        assert all(p.grad.any() for p in encoder.parameters())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(copied.bbox_head) is with_latent(
            type(model.bbox_head).__mro__[2]
        )
        assert matrix.same(
            matrix.answers(copied, base_models.inputs(cfg)),
            matrix.answers(model, base_models.inputs(cfg)),
        )
    for field in ('train_draws', 'test_draws'):
        cfg.model[field] = dict(latent=2)
        with pytest.raises(ValueError, match=f'{field}.latent=2: bbox_head'):
            base_models.build(cfg)
        cfg.model.pop(field)


@pytest.mark.parametrize(
    ('scope', 'cfg', 'message'),
    [
        (
            'mmdet',
            dict(base='YOLOXHead', num_classes=2, in_channels=8),
            "YOLOXHead has no latent.*'RetinaHead'",
        ),
        (
            # classifies by cls_seg's layer in functions of its own
            'mmseg',
            dict(base='SegmenterMaskTransformerHead', in_channels=8,
                 channels=8, num_classes=3, num_layers=1, num_heads=1,
                 embed_dims=8),
            'SegmenterMaskTransformerHead has no latent',
        ),
    ],
)  # fmt: skip
def test_a_head_without_a_last_feature_is_told(scope, cfg, message):
    with pytest.raises(ValueError, match=message):
        build(scope, type='mmaib.WithLatent', **cfg)


def test_an_unknown_base():
    with pytest.raises(KeyError, match="base='FCNHaed'"):
        build('mmseg', type='mmaib.WithLatent', base='FCNHaed')


def test_fields_of_its_owner_are_refused():
    with pytest.raises(ValueError, match="latent sets {'loss_name'"):
        fcn(loss_name='loss_other')


def test_outside_of_a_model_that_collects_it_is_refused():
    with pytest.raises(RuntimeError, match='WithLatentFCNHead is trained'):
        fcn().train()([torch.rand(1, 8, 4, 4)])
