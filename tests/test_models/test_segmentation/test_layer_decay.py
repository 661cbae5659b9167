import pytest
import torch
from mmengine.optim import build_optim_wrapper
from support import segmentation as seg


def grouped(**paramwise):
    """name -> (learning rate, weight decay) under the paper's schedule."""
    torch.manual_seed(0)
    cfg = seg.shrink(seg.config(seg.UPERNET / f'aib-qt_{seg.BEIT}'))
    cfg.model.neck.bottleneck.modulation.init = 'identity'
    cfg.optim_wrapper.paramwise_cfg.update(num_layers=4, **paramwise)
    model = seg.build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [
        (names[id(p)], (group['lr'], group['weight_decay']))
        for group in optimizer.param_groups
        for p in group['params']
    ]
    for group in optimizer.param_groups:
        lr = group['lr_scale'] * cfg.optim_wrapper.optimizer.lr
        assert group['lr'] == pytest.approx(lr)
    found = dict(listed)
    assert len(found) == len(listed)
    assert set(found) == set(names.values())
    return found


@pytest.fixture(scope='module')
def groups():
    return grouped()


@pytest.mark.parametrize(
    'name',
    [
        'attention.mean_conv.weight',
        'attention.std_conv.weight',
        'attention.std_conv.bias',
        'quantizer.anchors',
        'modulation.gate',
    ],
)
def test_attention_has_the_full_rate_and_no_decay(groups, name):
    assert groups[f'neck.bottleneck.{name}'] == (1e-3, 0.0)


@pytest.mark.parametrize(
    ('name', 'steps', 'decay'),
    [
        ('decode_head.bottleneck.conv.weight', 0, 0.05),
        ('decode_head.fpn_bottleneck.conv.weight', 0, 0.05),
        ('decode_head.conv_seg.bias', 0, 0.0),
        ('neck.neck.upsample_2x.0.weight', 0, 0.05),
        ('auxiliary_head.conv_seg.weight', 0, 0.05),
        ('backbone.layers.3.attn.qkv.weight', 1, 0.05),
        ('backbone.layers.0.attn.qkv.weight', 4, 0.05),
        ('backbone.layers.0.ln1.weight', 4, 0.0),
        ('backbone.patch_embed.projection.weight', 5, 0.05),
    ],
)
def test_the_rest_is_mmsegs(groups, name, steps, decay):
    rate, weight_decay = groups[name]
    assert rate == pytest.approx(1e-3 * 0.65**steps)
    assert weight_decay == decay


KEYS = {
    'encoder.std': dict(lr_mult=0.01),
    'bottleneck': dict(lr_mult=0.1),
    'bottleneck.quantizer': dict(lr_mult=10.0),
    'layers.3': dict(lr_mult=0.5, decay_mult=0.1),
}


@pytest.mark.parametrize(
    ('name', 'rate', 'decay'),
    [
        ('decode_head.encoder.std.weight', 1e-5, 0.05),
        ('decode_head.encoder.std.bias', 1e-5, 0.0),
        ('neck.bottleneck.attention.mean_conv.weight', 1e-4, 0.0),
        ('neck.bottleneck.quantizer.anchors', 1e-2, 0.0),
        ('backbone.layers.3.attn.qkv.weight', 0.5e-3 * 0.65, 0.005),
        ('backbone.layers.3.ln1.weight', 0.5e-3 * 0.65, 0.0),
        ('backbone.layers.2.attn.qkv.weight', 1e-3 * 0.65**2, 0.05),
        ('decode_head.conv_seg.weight', 1e-3, 0.05),
    ],
)
def test_custom_keys(name, rate, decay):
    """Of several that fit, the longest counts, as in MMEngine's."""
    found_rate, found_decay = grouped(custom_keys=KEYS)[name]
    assert found_rate == pytest.approx(rate)
    assert found_decay == pytest.approx(decay)


@pytest.mark.parametrize(
    ('paramwise', 'named'),
    [
        (dict(norm_decay_mult=0.0), 'norm_decay_mult'),
        (dict(custom_keys={'critic': dict(lr_mul=0.1)}), 'critic.*lr_mul'),
    ],
)
def test_unknown_fields_are_named(paramwise, named):
    with pytest.raises(ValueError, match=named):
        grouped(**paramwise)
