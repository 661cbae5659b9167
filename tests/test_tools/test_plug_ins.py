"""The attentions of others that ours is compared with."""

import json
import runpy
import sys

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope


@pytest.fixture
def tool(studies):
    return studies / 'plug_ins.py'


def test_parts_give_features_as_they_get_them(tool):
    import peers  # noqa: F401

    torch.manual_seed(0)
    x = torch.rand(2, 32, 9, 12)
    for part in (
        dict(type='Residual', hidden=3),
        dict(type='ContextBlock', ratio=1 / 16),
        dict(type='KeyContentAttention'),
    ):
        neck = MODELS.build(
            dict(type='LevelsWithParts', in_channels=[32, 32], part=part)
        )
        for level in neck([x, x]):
            assert torch.equal(level, x), part  # nothing is added at first
    half = MODELS.build(dict(type='CBAM', in_channels=32, channels=False))
    both = MODELS.build(dict(type='CBAM', in_channels=32))
    scores = half.eval()(x) / x
    assert torch.allclose(scores, scores[:, :1].expand_as(x))
    means, peaks = x.mean((2, 3), True), x.amax((2, 3), True)
    weights = (both.channels(means) + both.channels(peaks)).sigmoid()
    both.load_state_dict(half.state_dict(), strict=False)
    assert torch.allclose(both.eval()(x), half(x * weights))
    se = MODELS.build(dict(type='SE', in_channels=32))
    first, second = se.conv1.conv, se.conv2.conv
    weights = second(first(x.mean((2, 3), True)).relu()).sigmoid()
    assert torch.allclose(se(x), x * weights)


@pytest.mark.parametrize('task', ['trees', 'cifar10-subset'])
def test_a_residual_has_as_many_parameters_as_ours(tool, tmp_path, task):
    module = runpy.run_path(str(tool))
    counted = {
        arm.name: module['parameters'](arm)
        for arm in module['arms_of'](task, tmp_path)
    }
    assert len(counted) == 10
    added = {name: found - counted['base'] for name, found in counted.items()}
    # a hidden channel of the residual is 65 to 513 parameters
    rel = {'trees': 0.01, 'cifar10-subset': 0.05}[task]
    assert added['residual'] == pytest.approx(added['aib'], rel=rel)
    assert min(added[n] for n in added if n != 'base') > 0


def test_every_attention_of_vgg_starts_from_the_base_model(tool, tmp_path):
    module = runpy.run_path(str(tool))
    arms = {a.name: a for a in module['arms_of']('cifar10-subset', tmp_path)}
    built = {}
    for name in ('base', 'readout', 'aib-qt-literal', 'aib-qt', 'cbam'):
        cfg = module['read_config'](arms[name].config, arms[name].options)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            built[name] = MODELS.build(cfg.model)
    base = built['base'].state_dict()
    missing, unexpected = built['readout'].load_state_dict(base, strict=False)
    assert not unexpected
    assert all('bottleneck' in key for key in missing)
    layers = len(built['base'].neck)
    assert len(built['cbam'].neck) == layers + 1  # at the place of the map
    assert len(built['readout'].neck.neck) == layers
    quantised = [
        built[name].neck.bottleneck for name in ('aib-qt-literal', 'aib-qt')
    ]
    assert all(part.quantizer.num_anchors == 20 for part in quantised)
    assert [
        (p.attention.logit_norm, p.attention.std_conv.kernel_size[0])
        for p in quantised
    ] == [(False, 3), (True, 1)]


@pytest.mark.parametrize('task', ['trees', 'cifar10-subset'])
def test_the_table_of_records(tool, tmp_path, monkeypatch, capsys, task):
    records = tmp_path / 'kept.jsonl'
    name = 'coco/bbox_mAP'
    lines = [
        dict(set=task, name=arm, seed=seed, options=[],
             metrics={name: value + seed / 100})
        for arm, value in (('base', 0.5), ('residual', 0.4), ('gate', 0.6))
        for seed in (1, 2)
    ]  # fmt: skip
    records.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    words = [task, '--out', str(tmp_path), '--report-only']
    words += ['--records', f'{records}#{task}', '--seeds', '1', '2']
    monkeypatch.setattr(sys, 'argv', [str(tool), *words])
    monkeypatch.setenv('PYTHONPATH', '')
    runpy.run_path(str(tool), run_name='__main__')
    rows = dict(
        line.strip('| ').split(' | ', 1)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('| ')
    )
    assert '+0.1000 [+0.1000, +0.1000] * | +0.2000' in rows['gate']
    assert rows['aib'].startswith('not run | not run')


def test_a_readout_needs_its_base_model(tool, tmp_path, monkeypatch):
    words = ['trees', '--out', str(tmp_path), '--arms', 'readout']
    monkeypatch.setattr(sys, 'argv', [str(tool), *words])
    monkeypatch.setenv('PYTHONPATH', '')
    with pytest.raises(SystemExit, match='not finished: train base first'):
        runpy.run_path(str(tool), run_name='__main__')
