import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmaib.testing import segmentation as seg


@pytest.fixture(scope='module')
def groups():
    """name -> (learning rate, weight decay) under the paper's schedule."""
    torch.manual_seed(0)
    cfg = seg.shrink(seg.config(seg.UPERNET / f'aib-qt_{seg.BEIT}'))
    cfg.model.neck.bottleneck.modulation.init = 'identity'
    cfg.optim_wrapper.paramwise_cfg.num_layers = 4
    model = seg.build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [
        (names[id(p)], (group['lr'], group['weight_decay']))
        for group in optimizer.param_groups
        for p in group['params']
    ]
    found = dict(listed)
    assert len(found) == len(listed)
    assert set(found) == set(names.values())
    return found


@pytest.mark.parametrize(
    'name',
    [
        'attention.mean_conv.weight',
        'attention.mean_conv.bias',
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
        ('decode_head.encoder.std.weight', 0, 0.05),
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
