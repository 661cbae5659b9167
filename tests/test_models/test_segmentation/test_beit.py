import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from scipy.interpolate import RegularGridInterpolator
from support import REPOSITORY
from support import segmentation as seg
from timm.models.beit import Beit

from mmaib.models.segmentation.beit import AIBBEiT

CONVERTER = REPOSITORY / 'tools' / 'model_converters' / 'beit2mmseg.py'
SPEC = importlib.util.spec_from_file_location('beit2mmseg', CONVERTER)
beit2mmseg = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(beit2mmseg)


def timm_beit(size=64, **kwargs):
    """timm keeps the names of BEiT's public weights."""
    kwargs = {'use_rel_pos_bias': True, **kwargs}
    model = Beit(
        img_size=size, embed_dim=32, depth=3, num_heads=2, init_values=0.5,
        use_abs_pos_emb=False, num_classes=3, **kwargs,
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def our_beit(size=64):
    init_default_scope('mmseg')
    return AIBBEiT(
        img_size=(size, size), embed_dims=32, num_layers=3, num_heads=2,
        out_indices=(0, 1, 2), norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.5,
    ).eval()  # fmt: skip


def test_converted_weights_give_timms_features():
    theirs, ours = timm_beit(), our_beit()
    weights = beit2mmseg.convert(theirs.state_dict())
    result = ours.load_state_dict(weights, strict=False)
    assert result.unexpected_keys == []
    assert all('position_index' in key for key in result.missing_keys)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(
            image, intermediates_only=True, norm=False
        )
        for got, wanted in zip(ours(image), expected):
            assert torch.allclose(got, wanted, atol=1e-4)


def test_a_shared_table_is_given_to_every_layer():
    theirs = timm_beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    weights = beit2mmseg.convert(theirs.state_dict())
    ours = our_beit()
    result = ours.load_state_dict(weights, strict=False)
    assert result.unexpected_keys == []
    shared = theirs.rel_pos_bias.relative_position_bias_table
    for layer in ours.layers:
        table = layer.attn.relative_position_bias_table
        assert torch.equal(table, shared)


def table_by_name(model):
    return {
        name: value
        for name, value in model.state_dict().items()
        if name.endswith('bias_table')
    }


@pytest.mark.parametrize(('source', 'target'), [(64, 96), (96, 64)])
def test_another_grid_is_resized(source, target):
    """Against SciPy's other implementation of the cubic spline."""
    checkpoint, ours = our_beit(source), our_beit(target)
    for value in table_by_name(checkpoint).values():
        value.normal_()
    result = ours.load_state_dict(checkpoint.state_dict(), strict=True)
    assert result.missing_keys == []
    src, dst = 2 * source // 16 - 1, 2 * target // 16 - 1
    # the geometric grid: steps 1, q, q^2 ... that reach the new edge
    steps, reach = src // 2, dst // 2
    ratios = np.linspace(1.01, 1.5, 2_000_001)
    sums = (1 - ratios**steps) / (1 - ratios)
    ratio = ratios[np.abs(sums - reach).argmin()]
    right = np.cumsum(ratio ** np.arange(steps))
    grid = np.concatenate([-right[::-1], [0], right])
    wanted = np.clip(np.arange(-reach, reach + 1), grid[0], grid[-1])
    points = np.stack(np.meshgrid(wanted, wanted, indexing='ij'), -1)
    for name, table in table_by_name(checkpoint).items():
        resized = table_by_name(ours)[name]
        assert torch.equal(resized[-3:], table[-3:])  # the class token's
        for head in range(2):
            spline = RegularGridInterpolator(
                (grid, grid),
                table[:-3, head].view(src, src).double().numpy(),
                method='cubic',
            )
            expected = torch.tensor(spline(points)).flatten().float()
            assert torch.allclose(resized[:-3, head], expected, atol=1e-3)


def test_the_same_grid_is_left_alone():
    ours, other = our_beit(), our_beit()
    other.load_state_dict(ours.state_dict(), strict=True)
    for name, table in table_by_name(ours).items():
        assert torch.equal(table_by_name(other)[name], table)


def test_pretraining_on_another_grid(tmp_path):
    """The way of `init_cfg`, which in mmseg needs SciPy's interp2d."""
    weights = beit2mmseg.convert(timm_beit(96).state_dict())
    path = tmp_path / 'beit.pth'
    torch.save(weights, path)
    cfg = seg.shrink(seg.config(seg.UPERNET / seg.BEIT))
    cfg.model.pretrained = str(path)
    cfg.model.backbone.num_layers = 3
    cfg.model.backbone.out_indices = (0, 1, 1, 2)
    ours = seg.build(cfg)
    loaded = ours.backbone.state_dict()
    name = 'layers.0.attn.proj.weight'
    assert torch.equal(loaded[name], weights[name])
    assert table_by_name(ours.backbone)[
        'layers.0.attn.relative_position_bias_table'
    ].shape == (7 * 7 + 3, 2)


def test_a_segmentor_of_another_size_is_loaded():
    big = seg.shrink(seg.config(seg.UPERNET / seg.BEIT))
    big.model.backbone.img_size = (96, 96)
    small = seg.build(seg.shrink(seg.config(seg.UPERNET / seg.BEIT)))
    small.load_state_dict(seg.build(big).state_dict(), strict=True)


def converter(*args):
    return subprocess.run(
        [sys.executable, str(CONVERTER), *map(str, args)],
        capture_output=True,
        text=True,
    )


def test_the_converter_command(tmp_path):
    source, target = tmp_path / 'beit.pth', tmp_path / 'new' / 'beit.pth'
    torch.save({'model': timm_beit().state_dict()}, source)
    done = converter(source, target)
    assert done.returncode == 0, done.stderr
    written = torch.load(target, weights_only=True)
    assert 'layers.2.ffn.layers.0.0.weight' in written
    assert list(target.parent.iterdir()) == [target]


class Payload:
    def __reduce__(self):
        return (print, ('unpickled',))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'does not exist'),
        ({'model': {'conv.weight': torch.ones(1)}}, 'no BEiT'),
        ({'model': Payload()}, 'beit2mmseg: Weights only load failed'),
    ],
)
def test_the_converter_refuses(tmp_path, content, message):
    source, target = tmp_path / 'beit.pth', tmp_path / 'out.pth'
    if content is not None:
        torch.save(content, source)
    done = converter(source, target)
    assert done.returncode != 0
    assert message in done.stderr
    assert 'unpickled' not in done.stdout
    assert not target.exists()
