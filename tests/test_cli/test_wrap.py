"""`mmaib wrap`. The matrix of tests/integration/test_any_model.py
runs what it writes for every base model."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mmcv._ext
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from support import REPOSITORY, base_models, matrix
from torch import nn

import mmaib
from mmaib.cli.loading import build_model, read_config
from mmaib.cli.main import main
from mmaib.cli.wrap import WrapError, wrap
from mmaib.cli.wrap.look import _blocks, blank_image, look
from mmaib.cli.wrap.plan import _inside, _level_at
from mmaib.cli.wrap.shapes import Cost, cost
from mmaib.cli.wrap.write import flat, hooks, schedule, tidy
from mmaib.cost import gmacs
from mmaib.layers import InformationGate
from mmaib.registry import type_name

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'


SMALL = (64, 64)


def write_original(folder, name, **fields):
    """A small base config as a user's file."""
    cfg = base_models.config(name)
    cfg.merge_from_dict(fields)
    (folder / 'original.py').write_text(cfg.pretty_text)
    return cfg


README = (REPOSITORY / 'README.md').read_text()
PAGE = (REPOSITORY / 'docs' / 'any_model.md').read_text()
# (base config, the part of what is written that README or page shows)
SHOWN = [
    (
        base,
        re.search(r'^model = .*?\n\)?(?=default_hooks|\Z)', text, re.S | re.M)[
            0
        ],
    )
    for base, text in re.findall(
        r'(mm\w+::\S+?\.py)(?:(?!```).)*?```python\n(.*?)```',
        README + PAGE[PAGE.index('## What it writes') :],
        re.DOTALL,
    )
]


def test_the_pages_show_a_base_model_of_each_library():
    scopes = [base.partition('::')[0] for base, _ in SHOWN]
    assert scopes == ['mmdet', 'mmdet', 'mmseg', 'mmpretrain']
    assert README.count('```python') == 1


@pytest.mark.parametrize(('original', 'model'), SHOWN)
def test_the_pages_show_what_is_written(
    original, model, tmp_path, capsys, monkeypatch
):
    """But for where lines break. And the base model's weights load."""
    monkeypatch.chdir(tmp_path)
    out = Path('my_config.py')
    assert main(['wrap', original.removesuffix('.py'), '--out', str(out)]) == 0
    said = capsys.readouterr().out
    _, _, text = out.read_text().partition('\n')
    shown = text.partition('\n\n')[2].partition('default_hooks')[0]
    assert tidy(shown) == tidy(model)
    for sentence in (f'wrote {out}', 'left alone:', 'parameters: '):
        assert sentence in said
    if original == RETINANET:
        whole = re.search(r'```python\n(.*?)```', PAGE, re.DOTALL)[1]
        assert text == tidy(whole)
        assert (
            'parameters: 37.97 M -> 37.97 M; multiply-adds of backbone and '
            'neck at 640x640: 40.27 G -> 40.29 G'
        ) in said
    plain, written = read_config(original), Config.fromfile(out)
    model = build_model(written)
    ours = model.load_state_dict(build_model(plain).state_dict(), strict=False)
    assert not ours.unexpected_keys
    assert ours.missing_keys
    assert all(matrix.is_ours(model, key) for key in ours.missing_keys)


def test_families_that_were_tried(capsys):
    """And the page counts them."""
    assert main(['wrap', '--list']) == 0
    lines = capsys.readouterr().out.splitlines()
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        own = [x for x in lines if x.startswith(f'{library}::')]
        placed = [
            x for x in own if x.split(maxsplit=1)[1].startswith('placed')
        ]
        row = rf'\| {library} \| {len(own)} of \d+ \| {len(placed)} \|'
        assert re.search(row, PAGE)
    assert main(['wrap', RETINANET]) == 2
    assert 'CONFIG and --out FILE.py are needed' in capsys.readouterr().err


def test_from_the_command_line(tmp_path):
    write_original(tmp_path, 'ResNet')
    name = 'an original.py'
    (tmp_path / 'original.py').rename(tmp_path / name)
    command = ['-m', 'mmaib', 'wrap', name, '--out', 'out.py']
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
    )
    assert run.returncode == 0, run.stderr
    assert 'gate before GlobalAveragePooling' in run.stdout
    text = (tmp_path / 'out.py').read_text()
    assert text.startswith(f'# Made by: {shlex.join(command[1:])}\n')
    assert 'rescale=True' in text  # all positions are pooled behind it


@pytest.mark.parametrize('attention', ['aib', 'aib-qt'])
@pytest.mark.parametrize(
    'name', ['YOLOv3', 'Libra R-CNN', 'UPerNet Swin', 'OCRNet', 'ConvNeXt']
)
def test_the_papers_map_starts_as_the_base_model_and_learns(
    name, attention, tmp_path
):
    cfg = write_original(tmp_path, name)
    plain = matrix.trained(base_models.build(cfg))
    model = matrix.wrapped(tmp_path, attention)
    model.load_state_dict(copy.deepcopy(plain.state_dict()), strict=False)
    data = base_models.inputs(cfg)
    assert matrix.same(
        matrix.answers(model, data), matrix.answers(plain, data)
    )
    losses = matrix.losses(model, data)
    assert 'loss_kl_map' in losses
    assert ('loss_vq' in losses) is (attention == 'aib-qt')
    model.parse_losses(losses)[0].backward()
    unused = [k for k, p in model.named_parameters()
              if p.grad is None and p.requires_grad]  # fmt: skip
    assert {*unused} <= matrix.without_gradient(plain, data)


@pytest.mark.parametrize('where', ['before', 'after'])
@pytest.mark.parametrize('name', ['FCOS', 'DINO', 'YOLOv3', 'UPerNet BEiT'])
def test_both_sides_of_a_neck(name, where, tmp_path):
    cfg = write_original(tmp_path, name)
    model = matrix.wrapped(tmp_path, 'gate', where=where)
    assert model.neck.where == where
    value, log = model.parse_losses(
        matrix.losses(model, base_models.inputs(cfg))
    )
    assert log['loss_info'] > 0
    value.backward()
    assert matrix.answers(model, base_models.inputs(cfg))


NECK = '''
import torch
from mmdet.registry import MODELS

@MODELS.register_module()
class MyNeck(torch.nn.Module):
    """Tells nothing of itself; its levels differ in channels."""

    def __init__(self, widths, as_dict=False):
        super().__init__()
        self.as_dict = as_dict
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, 1) for a, b in widths)

    def forward(self, x):
        out = [conv(level) for conv, level in zip(self.convs, x)]
        return dict(enumerate(out)) if self.as_dict else out
'''


@pytest.fixture
def users_config(tmp_path, monkeypatch):
    """A config over a `_base_` of the user's own, with a neck of their own in
    a module of their own."""
    folder = tmp_path / 'users'
    (folder / 'base').mkdir(parents=True)
    (folder / 'my_necks.py').write_text(NECK)
    monkeypatch.syspath_prepend(folder)
    cfg = base_models.config('YOLOX')
    cfg.model.neck = dict(type='MyNeck', widths=[[12, 12], [24, 12], [48, 12]])
    (folder / 'base' / 'model.py').write_text(cfg.pretty_text)
    mine = folder / 'mine.py'

    def write(**neck):
        text = (
            "_base_ = './base/model.py'\n"
            "custom_imports = dict(imports=['my_necks'])\n"
            'randomness = dict(seed=3)\n'
        )
        if neck:
            text += f'model = dict(neck={neck!r})\n'
        mine.write_text(text)
        return str(mine), cfg

    yield write
    sys.modules.pop('my_necks', None)
    from mmdet.registry import MODELS

    MODELS.module_dict.pop('MyNeck', None)


def test_a_config_of_the_users_with_a_neck_of_their_own(
    users_config, tmp_path, monkeypatch
):
    mine, cfg = users_config()
    out = tmp_path / 'elsewhere' / 'wrapped.py'
    monkeypatch.chdir(tmp_path)
    lines = wrap('users/mine.py', 'elsewhere/wrapped.py', size=SMALL)
    assert any('gate after MyNeck, a map a level' in line for line in lines)
    text = out.read_text()
    assert "_base_ = '../users/mine.py'" in text
    assert "imports=['my_necks', 'mmaib']" in text
    assert 'in_channels=[12, 12, 12]' in text
    written = Config.fromfile(out)
    assert written.randomness == dict(seed=3, diff_rank_seed=True)
    model = base_models.build(written)
    data = base_models.inputs(cfg)
    value, log = model.parse_losses(matrix.losses(model, data))
    assert log['loss_info'] > 0
    value.backward()
    plain = base_models.build(read_config(mine))
    ours = model.load_state_dict(plain.state_dict(), strict=False)
    assert not ours.unexpected_keys


def test_a_neck_whose_features_cannot_be_told(users_config, tmp_path):
    mine, _ = users_config(as_dict=True)
    lines = wrap(mine, tmp_path / 'before.py', size=SMALL)
    assert any('gate before MyNeck' in line for line in lines)
    with pytest.raises(WrapError, match='MyNeck gives a dict.*--where before'):
        wrap(mine, tmp_path / 'after.py', where='after', size=SMALL)
    assert not (tmp_path / 'after.py').exists()


def test_a_config_that_does_not_build_is_told(users_config, tmp_path):
    mine, _ = users_config(widths=None)
    with pytest.raises(WrapError, match='as it is does not build: TypeError'):
        wrap(mine, tmp_path / 'out.py')


def test_a_config_that_is_ours_already(tmp_path, capsys):
    ours = REPOSITORY / 'configs' / 'sample' / 'digits'
    ours /= 'gate_upernet_lite0_1xb8-500_digits-128x128.py'
    assert main(['wrap', str(ours), '--out', str(tmp_path / 'out.py')]) == 2
    said = capsys.readouterr().err
    assert 'already contains mmaib (model (AIBEncoderDecoder))' in said
    write_original(tmp_path, 'RetinaNet')
    wrap(str(tmp_path / 'original.py'), tmp_path / 'once.py', size=SMALL)
    with pytest.raises(WrapError, match='already contains mmaib'):
        wrap(str(tmp_path / 'once.py'), tmp_path / 'twice.py')


def test_a_file_that_is_there_is_left_alone(tmp_path):
    out = tmp_path / 'out.py'
    out.write_text('mine')
    with pytest.raises(WrapError, match='is there already'):
        wrap(RETINANET, out)
    assert out.read_text() == 'mine'


@pytest.mark.parametrize(
    ('original', 'message'),
    [
        ('nowhere.py', 'nowhere.py: no such file'),
        ('mmdet::retinanet', 'near: mmdet::retinanet/retinanet_'),
        ('mmdet::gn+ws/nothing', r'gn\+ws/nothing.*no such config'),
        ('no_such_package::a/b', 'no_such_package is not installed'),
        ('mmdet::retinanet/retinanot_r50_fpn_1x_coco.py',
         'near: mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'),
        ('mmdet::_base_/default_runtime.py', 'model.type is None'),
        ('mmdet::mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py',
         'Mask2FormerVideo has no extract_feat.*none has them'),
    ],
)  # fmt: skip
def test_what_is_no_model_with_features_is_refused(
    original, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        wrap(original, tmp_path / 'out.py')
    assert not (tmp_path / 'out.py').exists()


def test_a_backbone_that_gives_other_features_in_training(tmp_path):
    name, out = (
        'ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024',
        (tmp_path / 'out.py'),
    )
    name = f'mmseg::ddrnet/{name}.py'
    with pytest.raises(WrapError, match='in training than in evalu.*--at'):
        wrap(name, out, where='before')
    assert not out.exists()
    wrap(name, out, at='context_branch_layers.1')


@pytest.mark.parametrize(
    ('name', 'at', 'size'),
    [
        ('mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes', 'dfm', 1024),
        ('mmpretrain::inception_v3/inception-v3_8xb32_in1k', 'Mixed_7c', 299),
        ('mmpretrain::revvit/revvit-small_8xb256_in1k', 'ln1', 224),
        (
            'mmpretrain::tnt/tnt-s-p16_16xb64_in1k',
            'layers.10.outer_block',
            224,
        ),
        ('mmpretrain::lenet/lenet5_mnist', 'features.5', 32),
    ],
)
def test_where_no_block_gives_the_features(name, at, size, tmp_path):
    """A class token still sees what is attended, and all of the features
    pass there; the image is the test pipeline's."""
    lines = wrap(name, tmp_path / 'out.py')
    written = Config.fromfile(tmp_path / 'out.py')
    assert written.model.backbone.at == at
    assert f'at {size}x{size}: ' in lines[-1]
    wrap(name, tmp_path / 'again.py', at=at)


def test_a_block_of_the_backbone_by_name(tmp_path):
    cfg = write_original(tmp_path, 'RetinaNet')
    original = str(tmp_path / 'original.py')
    wrap(original, tmp_path / 'out.py', at='layer3.5', size=SMALL)
    model = base_models.build(Config.fromfile(tmp_path / 'out.py'))
    assert model.backbone.at == ['layer3.5']
    assert 'loss_info' in matrix.losses(model, base_models.inputs(cfg))
    with pytest.raises(WrapError, match="--at conv1: no block.*'layer1.0'"):
        wrap(original, tmp_path / 'other.py', at='conv1', size=SMALL)


def test_a_latent_where_there_is_none(tmp_path):
    write_original(tmp_path, 'YOLOX')
    with pytest.raises(
        WrapError, match="YOLOXHead has no latent.*'RetinaHead'"
    ):
        wrap(str(tmp_path / 'original.py'), tmp_path / 'out.py', latent=True)


# What is written


@pytest.mark.parametrize(
    ('train_cfg', 'warmup'),
    [
        (dict(max_iters=7), dict(end=3)),
        (dict(max_iters=1), dict(end=1)),
        (dict(max_epochs=12), dict(end=6, by_epoch=True)),
        (dict(max_epochs=4), dict(end=2, by_epoch=True)),
        (dict(max_epochs=3), dict(end=500)),
        (dict(max_epochs=1), dict(end=500)),
        (None, dict(end=500)),
    ],
)
def test_the_gate_opens_over_the_first_half(train_cfg, warmup):
    made, said = hooks(dict(train_cfg=train_cfg), 'gate')
    assert made['gate'] == dict(type='mmaib.BetaWarmupHook', **warmup)
    assert bool(said) is (warmup['end'] == 500)
    assert hooks({}, 'aib') == ({}, None)


@pytest.mark.parametrize(
    ('package', 'rate'),
    [('mmdet', 0.01), ('mmseg', 0.001), ('mmpretrain', 0.001), (None, 0.001)],
)
def test_the_rate_of_a_readout(package, rate):
    made = schedule({}, 8, package)
    assert made['optim_wrapper']['optimizer']['lr'] == rate
    assert [part['end'] for part in made['param_scheduler']] == [2, 8]


def test_a_runner_takes_the_hooks(tmp_path, new_runner):
    train = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg = write_original(tmp_path, 'ResNet', train_cfg=train)
    wrap(str(tmp_path / 'original.py'), tmp_path / 'out.py')
    written = Config.fromfile(tmp_path / 'out.py')
    model = base_models.build(written)
    runner = new_runner(
        model,
        base_models.inputs(cfg),
        steps=4,
        default_hooks=written.default_hooks,
    )
    assert isinstance(runner, Runner)
    runner.train()
    (gate,) = (m for m in model.modules() if isinstance(m, InformationGate))
    assert float(gate.strength) == 1
    factors = runner.message_hub.get_scalar('train/beta_factor').data[0]
    assert factors.tolist() == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize('name', ['RetinaNet', 'SegFormer', 'ResNet', 'ViT'])
def test_a_readout_trains_the_map_alone(name, tmp_path, new_runner):
    """By its own schedule, whatever the base model's; what it logs of the base
    model is the base library's own metric to the bit."""
    average = dict(type='EMAHook', momentum=1e-4)
    other = dict(type='mmaib.FiniteCheckHook')
    cfg = write_original(
        tmp_path,
        name,
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=300),
        custom_hooks=[average, other],
    )
    plain = matrix.trained(base_models.build(cfg))
    original, out = str(tmp_path / 'original.py'), tmp_path / 'out.py'
    lines = wrap(original, out, 'readout', size=SMALL, iterations=4)
    assert any('load_from must name a checkpoint' in line for line in lines)
    assert any(line.endswith(': 4 iterations') for line in lines)
    assert not any('optimizer, checkpoint keys' in line for line in lines)
    written = Config.fromfile(out)
    (kept,) = written.custom_hooks
    assert kept.type == other['type']
    model = base_models.build(written)
    state = {k: v.clone() for k, v in plain.state_dict().items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data = base_models.inputs(cfg)
    runner = new_runner(
        model,
        data,
        steps=4,
        **{
            field: written[field]
            for field in ('train_cfg', 'optim_wrapper', 'param_scheduler',
                          'log_processor', 'default_hooks')
        },
    )  # fmt: skip
    runner.train()
    for key, value in model.state_dict().items():
        if not matrix.is_ours(model, key):
            assert torch.equal(value, before[key]), key
    (log,) = (
        path.read_text().splitlines()
        for path in tmp_path.glob('*/vis_data/scalars.json')
    )
    found = {k: v for line in log for k, v in json.loads(line).items()}
    assert found['info_bits_per_image'] > 0
    expected = new_runner(plain, data).val()['base/answer']
    assert found['ablation/open/base/answer'] == expected
    assert found['base/answer'] != expected
    assert 'ablation/shuffle/base/answer' in found
    assert (tmp_path / 'iter_4.pth').exists()


def test_a_readout_has_no_latent(tmp_path):
    write_original(tmp_path, 'RetinaNet')
    original, out = str(tmp_path / 'original.py'), tmp_path / 'out.py'
    with pytest.raises(WrapError, match='--latent: a readout freezes'):
        wrap(original, out, 'readout', latent=True, size=SMALL)
    with pytest.raises(WrapError, match='--iterations must be >= 1, got 0'):
        wrap(original, out, 'readout', size=SMALL, iterations=0)
    with pytest.raises(WrapError, match='--iterations 4: how long a readout'):
        wrap(original, out, 'gate', size=SMALL, iterations=4)


def test_lines_are_short_and_mean_what_they_say():
    value = dict(
        a=[dict(type='x' * 30, b=(1, 2)), dict(type='y' * 30, c=None)],
        d=dict(e='z' * 60),
    )
    text = tidy(flat(value))
    assert max(map(len, text.split('\n'))) < 80
    assert eval(text) == value


def test_what_the_base_config_says_of_its_own_run_is_left_alone(
    tmp_path, monkeypatch
):
    """And hooks that are called as mmaib's are; a module's name may stand
    without a list."""
    monkeypatch.chdir(tmp_path)
    mine = dict(type='ParamSchedulerHook')
    write_original(
        tmp_path, 'RetinaNet', work_dir='runs/original', resume=True,
        custom_imports=dict(imports='json'),
        default_hooks=dict(gate=mine, attention=mine),
    )  # fmt: skip
    lines = wrap('original.py', 'mine.py', size=SMALL)
    cfg = Config.fromfile('mine.py')
    assert cfg.work_dir == './work_dirs/mine'
    assert cfg.resume is False
    assert (
        "work_dir: ./work_dirs/mine, not the base config's runs/original"
        in (lines)
    )
    assert cfg.custom_imports.imports == ['json', 'mmaib']
    assert cfg.default_hooks.gate == cfg.default_hooks.attention == mine
    assert cfg.default_hooks.mmaib_gate.type == 'mmaib.BetaWarmupHook'
    watching = cfg.default_hooks.mmaib_attention.type
    assert watching == 'mmaib.AttentionEvalHook'
    # one that says nothing of them keeps saying nothing
    write_original(tmp_path, 'RetinaNet')
    wrap('original.py', 'plain.py', size=SMALL)
    assert 'work_dir' not in Path('plain.py').read_text()
    assert 'resume' not in Path('plain.py').read_text()


@pytest.mark.parametrize('key', ['attention', 'maps', 'listed', 'lazy'])
@pytest.mark.parametrize('attention', ['gate', 'readout'])
def test_maps_are_evaluated_once(key, attention, tmp_path, monkeypatch):
    """Where the base config does so already, by the same hook."""
    monkeypatch.chdir(tmp_path)
    metric = dict(foreground=[1])
    kind = 'mmaib.AttentionEvalHook'
    theirs = dict(type=kind, metric=metric, ablations=['mirror'])
    fade = dict(type='mmaib.BetaWarmupHook', end=9, by_epoch=True)
    hooks = dict(default_hooks=dict(attention=theirs, gate=fade))
    if key == 'maps':
        hooks = dict(default_hooks=dict(maps=theirs, fade=fade))
    if key == 'listed':
        hooks = dict(custom_hooks=[theirs, fade])
    if key == 'lazy':  # as MMEngine dumps a class
        path = 'mmaib.hooks.attention_eval_hook.AttentionEvalHook'
        hooks = dict(default_hooks=dict(maps={**theirs, 'type': path}))
    write_original(
        tmp_path, 'RetinaNet', custom_imports=dict(imports='mmaib'), **hooks
    )
    wrap('original.py', 'mine.py', attention, size=SMALL)
    cfg = Config.fromfile('mine.py')
    found = [*cfg.get('default_hooks', {}).values()]
    found += cfg.get('custom_hooks') or []
    watching = [h for h in found if h['type'].endswith('AttentionEvalHook')]
    fading = [h for h in found if h['type'].endswith('BetaWarmupHook')]
    assert len(watching) == len(fading) == 1
    if attention == 'readout':
        assert watching[0]['ablations'][0] == 'open'
        assert fading[0] == dict(type='mmaib.BetaWarmupHook', end=100)
    else:
        assert watching[0]['metric'] == metric
        assert watching[0]['ablations'] == ['mirror']


def test_hooks_that_are_switched_off_stay_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    off = dict(gate=None, attention=None)
    write_original(tmp_path, 'RetinaNet', default_hooks=off)
    wrap('original.py', 'mine.py', size=SMALL)
    found = Config.fromfile('mine.py').default_hooks
    assert found.attention is found.gate is None
    assert {*found} == {*off, 'mmaib_gate', 'mmaib_attention'}


def trained_in(path):
    """By tools/train.py, and by the base libraries' own."""
    return Config.fromfile(path).get('work_dir') or f'work_dirs/{path.stem}'


@pytest.mark.parametrize(
    'explicit', [None, './work_dirs/original', 'w/v2.gate']
)
def test_no_two_files_train_in_one_folder(explicit, tmp_path, monkeypatch):
    """Nor where the base config's does, or where somebody trained before."""
    tmp_path /= 'project'
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    fields = dict(work_dir=explicit) if explicit else {}
    write_original(tmp_path, 'RetinaNet', **fields)
    other = Path('work_dirs/v3')
    other.mkdir(parents=True)
    (other / 'epoch_1.pth').write_text('of somebody')
    names = ['original.gate', 'v2.gate', 'v2.aib', 'a/original', 'b/original',
             'a/v2.gate', 'v2', 'v3', '../original', '../v2']  # fmt: skip
    paths = [tmp_path / f'{name}.py' for name in names]
    for path in paths:
        wrap('original.py', path, size=SMALL)
    folders = [trained_in(path) for path in [tmp_path / 'original.py', *paths]]
    assert len({os.path.abspath(f) for f in folders}) == len(folders)
    # a CheckpointHook with an out_dir goes by the last name
    assert len({Path(f).name for f in folders}) == len(folders)
    assert 'work_dirs/v3' not in {os.path.normpath(f) for f in folders}


def test_results_of_the_base_model_are_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco = dict(type='CocoMetric', outfile_prefix='/r/original', metric='bbox')
    dump = dict(type='DumpResults', out_file_path='results/original.pkl')
    write_original(
        tmp_path, 'RetinaNet', val_evaluator=coco,
        test_evaluator=[dict(type='VOCMetric'), dump],
    )  # fmt: skip
    lines = wrap('original.py', 'mine/gate.py', size=SMALL)
    cfg = Config.fromfile('mine/gate.py')
    own = './work_dirs/mine__gate'
    assert cfg.work_dir == own
    assert cfg.val_evaluator == dict(coco, outfile_prefix=f'{own}/original')
    assert cfg.test_evaluator == [
        dict(type='VOCMetric'), dict(dump, out_file_path=f'{own}/original.pkl')
    ]  # fmt: skip
    assert 'val_evaluator: files in the work dir of this config' in lines


def test_a_file_of_the_name_of_a_config_of_the_base_librarys(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / Path(RETINANET).name
    wrap(RETINANET, out)
    assert trained_in(out) == f'./work_dirs/{out.stem}__2'


def test_a_readout_starts_from_no_checkpoint_of_the_base_configs(
    tmp_path, monkeypatch
):
    """That is what the base model started from. Nor does it write where the
    base config's training did."""
    monkeypatch.chdir(tmp_path)
    elsewhere = dict(type='LocalVisBackend', save_dir='drawn')
    write_original(
        tmp_path,
        'RetinaNet',
        load_from='coco.pth',
        default_hooks=dict(
            logger=dict(type='LoggerHook', out_dir='logs'),
            checkpoint=dict(type='CheckpointHook', out_dir='kept'),
        ),
        visualizer=dict(
            type='Visualizer', vis_backends=[elsewhere], save_dir='drawn'
        ),
    )
    for attention, expected in (('readout', None), ('gate', 'coco.pth')):
        wrap('original.py', f'{attention}.py', attention, size=SMALL)
        assert Config.fromfile(f'{attention}.py').load_from == expected
    cfg = Config.fromfile('readout.py')
    assert cfg.default_hooks.logger.out_dir is None
    assert cfg.default_hooks.checkpoint.out_dir is None
    assert cfg.default_hooks.attention.confined is True
    assert cfg.visualizer == dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
    )


def test_files_are_checked_in_every_training_pipeline(tmp_path):
    """Inside wrappers and lists too; what reads no single image file, or is
    checked already, stays."""
    cfg = base_models.config('RetinaNet')
    load = dict(type='LoadImageFromFile', backend_args=dict(backend='local'))
    pack = dict(type='PackDetInputs')
    plain = dict(type='CocoDataset', ann_file='a.json', pipeline=[load, pack])
    checked = dict(plain, pipeline=[dict(type='mmaib.CheckFiles'), pack])
    bands = dict(
        plain, pipeline=[dict(type='LoadMultiChannelImageFromFiles'), pack]
    )
    tiff = dict(load, imdecode_backend='tifffile')
    parts = [
        bands, plain, checked, dict(plain, pipeline=[tiff]),
        dict(type='RepeatDataset', times=3, dataset=plain),
    ]  # fmt: skip
    both = dict(type='ConcatDataset', datasets=parts)
    cfg.train_dataloader = dict(
        batch_size=2, dataset=dict(type='MultiImageMixDataset', dataset=both)
    )
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    out = tmp_path / 'ours.py'
    lines = wrap(str(tmp_path / 'original.py'), out, size=SMALL)
    assert 'train_dataloader: mmaib.CheckFiles, first' in lines
    loader = Config.fromfile(out).train_dataloader
    assert loader.batch_size == 2
    first = dict(type='mmaib.CheckFiles', backend_args=dict(backend='local'))
    made = dict(plain, pipeline=[first, load, pack])
    repeated = dict(parts[-1], dataset=made)
    assert [part.to_dict() for part in loader.dataset.dataset.datasets] == [
        bands, made, checked, parts[3], repeated,
    ]  # fmt: skip
    for other in (bands, checked):
        cfg.train_dataloader = dict(dataset=other)
        (tmp_path / 'original.py').write_text(cfg.pretty_text)
        out.unlink()
        wrap(str(tmp_path / 'original.py'), out, size=SMALL)
        assert 'train_dataloader' not in out.read_text()


def test_a_users_class_that_is_named_as_a_base_models(tmp_path):
    """It stays, with all that it does."""
    from mmdet.models import FasterRCNN, Shared2FCBBoxHead
    from mmengine.registry import MODELS
    from mmengine.registry import Registry as MMRegistry

    lab = MMRegistry('model', parent=MODELS, scope='mylab')
    try:
        for kind in (FasterRCNN, Shared2FCBBoxHead):
            lab.register_module(
                module=type(
                    kind.__name__, (kind,), {'__module__': 'mylab.models'}
                )
            )
        cfg = base_models.config('Faster R-CNN')
        cfg.model.type = 'mylab.FasterRCNN'
        cfg.model.roi_head.bbox_head.type = 'mylab.Shared2FCBBoxHead'
        (tmp_path / 'original.py').write_text(cfg.pretty_text)
        out = tmp_path / 'out.py'
        wrap(str(tmp_path / 'original.py'), out, latent=True, size=SMALL)
        model = Config.fromfile(out).model
        assert model.type == 'mmaib.WithAuxLosses'
        assert model.base == 'mylab.FasterRCNN'
        head = model.roi_head.bbox_head
        assert head.type == 'mmaib.WithLatent'
        assert head.base == 'mylab.Shared2FCBBoxHead'
    finally:
        MODELS.children.pop('mylab')


def test_the_model_gives_its_library_not_the_scope(tmp_path):
    cfg = base_models.config('ResNet')
    cfg.default_scope = 'mmengine'
    cfg.model.type = 'mmpretrain.ImageClassifier'
    for part in ('backbone', 'neck', 'head'):
        cfg.model[part].type = f'mmpretrain.{cfg.model[part].type}'
    cfg.model.head.loss.type = f'mmpretrain.{cfg.model.head.loss.type}'
    cfg.model.data_preprocessor = dict(type='mmpretrain.ClsDataPreprocessor')
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    wrap(str(tmp_path / 'original.py'), tmp_path / 'out.py', size=SMALL)
    model = Config.fromfile(tmp_path / 'out.py').model
    assert model.type == 'mmaib.AIBImageClassifier'
    assert model.neck.bottleneck.modulation.rescale is True


def test_images_of_one_channel(tmp_path):
    cfg = base_models.config('ResNet')
    cfg.model.backbone.in_channels = 1
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    wrap(str(tmp_path / 'original.py'), tmp_path / 'out.py', size=SMALL)
    read_config(str(tmp_path / 'out.py'))


@pytest.mark.parametrize('mean', [None, [1.0]])
def test_images_of_any_number_of_bands(mean, tmp_path):
    """Normalised by the model or in the pipeline."""
    cfg = base_models.config('OCRNet')
    cfg.model.backbone.in_channels = 5
    cfg.model.data_preprocessor.mean = mean
    cfg.model.data_preprocessor.std = mean
    cfg.model.data_preprocessor.bgr_to_rgb = False
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    out = tmp_path / 'out.py'
    lines = wrap(str(tmp_path / 'original.py'), out, size=SMALL)
    assert 'multiply-adds of backbone and neck at 64x64' in lines[-1]
    model = build_model(read_config(str(out)))
    assert blank_image(model, SMALL).shape == (1, 5, *SMALL)


class Folded(nn.Module):
    """A stem that folds 2 x 2 pixels into channels, as YOLOX's does."""

    def __init__(self, bands):
        super().__init__()
        self.late = nn.Conv2d(8, 8, 1)  # registered first, runs last
        self.stem = nn.Conv2d(4 * bands, 8, 1)

    def forward(self, x):
        return self.late(self.stem(nn.functional.pixel_unshuffle(x, 2)))


class TwoStreams(nn.Module):
    """Colours through one stem, the bands after them through another."""

    def __init__(self, bands):
        super().__init__()
        self.colours = nn.Conv2d(3, 8, 1)
        self.others = nn.Conv2d(bands - 3, 8, 1)

    def forward(self, x):
        return self.colours(x[:, :3]) + self.others(x[:, 3:])


@pytest.mark.parametrize(
    ('backbone', 'mean', 'bands'),
    [
        (nn.Conv2d(1, 8, 3), 1, 1),
        (nn.Conv2d(13, 8, 3), 1, 13),
        (nn.Conv2d(4, 8, 3), 3, 4),  # one is appended after normalising
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 8, 3)), None, 2),
        (nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU()), 6, 6),
        (Folded(3), 3, 3),
        (Folded(7), None, 7),
        (TwoStreams(5), 5, 5),
        (nn.Identity(), None, 3),
    ],
)
def test_bands_are_those_of_the_layer_that_runs_first(backbone, mean, bands):
    model = nn.Module()
    model.backbone = backbone.eval()
    model.extract_feat = lambda images: backbone(images)
    if mean:
        model.data_preprocessor = nn.Module()
        model.data_preprocessor.register_buffer('mean', torch.ones(mean, 1, 1))
    image = blank_image(model, (16, 24))
    assert image.shape == (1, bands, 16, 24)
    model.extract_feat(image)
    for module in backbone.modules():
        assert not module._forward_pre_hooks


@pytest.mark.parametrize(
    'name',
    ['mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco',
     'mmdet::legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py'],
)  # fmt: skip
def test_a_name_of_more_than_letters(name, tmp_path):
    """MMEngine's own reader takes no + and no . in a folder; it reads what is
    written, without our tools."""
    wrap(name, tmp_path / 'out.py', size=SMALL)
    written = Config.fromfile(tmp_path / 'out.py')
    assert written.model.neck.type == 'mmaib.AIBNeck'
    assert written.model.neck.neck.type == 'FPN'


@pytest.mark.parametrize('name', ['RetinaNet', 'Swin', 'RTMDet'])
def test_a_run_without_values_costs_what_one_with_them_does(name):
    model = base_models.build(base_models.config(name)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        macs = gmacs(lambda: model.extract_feat(image))
    found = cost(model, image)
    assert found.macs == macs > 0
    assert not found.uncounted


class InNeedOfValues(nn.Module):
    """Counts what is above zero."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.extract_feat = self.forward

    def forward(self, x):
        return self.conv(x)[:, : int((x > 0).sum()) + 1]


def test_an_operator_in_need_of_values_gets_them():
    found = cost(InNeedOfValues(), torch.zeros(1, 3, 4, 4))
    assert found == Cost(32 / 1e6, 3 * 8 * 16 / 1e9)


@pytest.mark.parametrize(
    ('name', 'operator'),
    [('mmdet::dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py', None),
     ('mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', 'deform_conv'),
     ('mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py', 'carafe')],
)  # fmt: skip
def test_operators_of_mmcv_are_skipped_and_named(name, operator, tmp_path):
    """Those that are for a GPU alone too; outside they are as they were."""
    before = vars(mmcv._ext).copy()
    lines = wrap(name, tmp_path / 'out.py', size=SMALL)
    assert (f', without those of {operator}' in lines[-1]) is bool(operator)
    assert vars(mmcv._ext) == before


TYPED = """_base_ = 'base.py'
from mmdet.models import RetinaNet
from mmengine.hooks import EMAHook
from mmdet.models import FPN, RetinaHead
from mmaib.hooks import FiniteCheckHook
model = dict(
    type=RetinaNet, neck=dict(type=FPN), bbox_head=dict(type=RetinaHead))
custom_hooks = [dict(type=EMAHook), dict(type=FiniteCheckHook)]
"""


@pytest.mark.parametrize('attention', ['gate', 'readout'])
def test_types_that_are_classes(tmp_path, attention):
    write_original(tmp_path, 'RetinaNet')
    (tmp_path / 'original.py').rename(tmp_path / 'base.py')
    (tmp_path / 'original.py').write_text(TYPED)
    latent = attention == 'gate'
    lines = wrap(
        str(tmp_path / 'original.py'), tmp_path / 'out.py', attention,
        latent=latent, size=SMALL,
    )  # fmt: skip
    assert not any('<class' in line for line in lines)
    written = Config.fromfile(tmp_path / 'out.py')
    model = base_models.build(written)
    assert type(model).__name__ == 'WithAuxLossesRetinaNet'
    assert hasattr(model.bbox_head, 'latents') is latent
    if attention == 'readout':
        (kept,) = written.custom_hooks
        assert HOOKS.build(kept).priority == 'VERY_HIGH'


@pytest.mark.parametrize('attention', ['gate', 'aib-qt', 'readout'])
@pytest.mark.parametrize('name', ['RetinaNet', 'ViT'])
def test_a_pure_python_config(name, attention, tmp_path, monkeypatch):
    """It is imported by one in its style, with classes as types, that means
    what the old style says."""
    monkeypatch.chdir(tmp_path)
    cfg = write_original(tmp_path, name, work_dir='runs/original')
    old = tmp_path / 'old.py'
    wrap('original.py', old, attention, size=base_size(name))
    kind = cfg.model.type
    (tmp_path / 'mine').mkdir()
    text = (tmp_path / 'original.py').read_text()
    (tmp_path / 'base.py').write_text(
        f'from {cfg.default_scope}.models import {kind}\n'
        + text.replace(f"type='{kind}'", f'type={kind}')
    )
    out = tmp_path / 'mine' / 'out.py'
    wrap('base.py', out, attention, size=base_size(name))
    text = out.read_text()
    assert 'with read_base():\n    from ..base import *' in text
    assert "type='" not in text
    made, expected = Config.fromfile(out), Config.fromfile(old)
    for field in ('default_hooks', 'randomness', 'optim_wrapper', 'resume'):
        assert classless(made.get(field)) == classless(expected.get(field))
    made, expected = base_models.build(made), base_models.build(expected)
    assert str(made) == str(expected)
    assert {*made.state_dict()} == {*expected.state_dict()}


def base_size(name):
    return SMALL if name == 'RetinaNet' else None


def classless(value):
    """Fields with the names of their types alone."""
    if isinstance(value, dict):
        return {
            k: type_name(v).rpartition('.')[2] if k == 'type' else classless(v)
            for k, v in value.items()
        }
    return value


def test_a_pure_python_config_that_nothing_can_import(tmp_path):
    (tmp_path / 'my-base.py').write_text(
        'from mmdet.models import RetinaNet\n'
        + base_models.config('RetinaNet').pretty_text.replace(
            "type='RetinaNet'", 'type=RetinaNet'
        )
    )
    with pytest.raises(WrapError, match="'my-base' is no name that Python"):
        wrap(str(tmp_path / 'my-base.py'), tmp_path / 'out.py', size=SMALL)
    assert not (tmp_path / 'out.py').exists()


TIMM = dict(
    _delete_=True, type='mmpretrain.TIMMBackbone', model_name='resnet18',
    features_only=True, pretrained=False, out_indices=(1, 2, 3, 4),
)  # fmt: skip


def test_a_block_of_a_backbone_inside_another(tmp_path):
    cfg = base_models.config('RetinaNet')
    channels = dict(in_channels=[64, 128, 256, 512])
    cfg.merge_from_dict(dict(model=dict(backbone=TIMM, neck=channels)))
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    original = str(tmp_path / 'original.py')
    wrap(original, tmp_path / 'out.py', at='timm_model.layer3.1', size=SMALL)
    model = base_models.build(Config.fromfile(tmp_path / 'out.py'))
    assert 'loss_info' in matrix.losses(model, base_models.inputs(cfg))


class Stem(nn.Module):
    """With a list of its own, and blocks after it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

    def forward(self, x):
        return self.blocks(x)


def test_what_stands_deeper_is_no_place_by_itself():
    """Where a backbone has blocks at its top, attention goes there unless
    `--at` names another."""
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.layers = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
    )
    model.backbone.stem = Stem()
    model.extract_feat = lambda x: model.backbone.stem(
        model.backbone.layers(x)[:, :3]
    )
    seen = look(model, SMALL)
    assert _inside(seen, None) == ('layers.1', 6)
    assert _inside(seen, 'stem.blocks.0') == ('stem.blocks.0', 4)
    del model.backbone.layers
    model.extract_feat = model.backbone.stem
    assert _inside(look(model, SMALL), None) == ('stem.blocks.1', 4)


def test_a_link_to_the_folder_that_is_written_to(tmp_path, monkeypatch):
    (tmp_path / 'scratch' / 'deep').mkdir(parents=True)
    (tmp_path / 'work').symlink_to(tmp_path / 'scratch' / 'deep')
    write_original(tmp_path, 'RetinaNet')
    monkeypatch.chdir(tmp_path)
    wrap('original.py', 'work/mine/out.py', size=SMALL)
    written = (tmp_path / 'work' / 'mine' / 'out.py').read_text()
    assert f"_base_ = '{tmp_path / 'original.py'}'" in written


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            "_base_ = './nowhere.py'\n",
            r'original\.py cannot be read: .*nowhere',
        ),
        ('model = None\n', 'model.type is None'),
    ],
)
def test_a_config_that_cannot_be_a_base(tmp_path, text, message):
    (tmp_path / 'base.py').write_text("model = dict(type='RetinaNet')\n")
    (tmp_path / 'original.py').write_text(text)
    with pytest.raises(ValueError, match=message):
        wrap(str(tmp_path / 'original.py'), tmp_path / 'out.py')
    assert not (tmp_path / 'out.py').exists()


def test_blocks_in_lists_of_lists_are_seen():
    backbone = base_models.build(base_models.config('SegFormer')).backbone
    names = [name for name, _ in _blocks(backbone)]
    assert 'layers.3.1.0' in names
    for name in names:
        assert not isinstance(backbone.get_submodule(name), nn.ModuleList)


def test_of_levels_of_one_stride_the_last():
    levels = [torch.zeros(1, 1, n, n) for n in (16, 4, 4, 2)]
    assert _level_at(levels, SMALL, stride=16) == 2


def test_a_config_in_python(tmp_path):
    cfg = write_original(tmp_path, 'RetinaNet')
    made = mmaib.wrap_config(cfg, 'aib', size=SMALL)
    assert made.model.type == 'mmaib.WithAuxLosses'
    assert made.model.neck.bottleneck.attention.logit_norm is True
    by_path = mmaib.wrap_config(tmp_path / 'original.py', 'aib', size=SMALL)
    assert by_path.model == made.model
    assert [p.name for p in tmp_path.iterdir()] == ['original.py']
    with pytest.raises(WrapError, match='already contains mmaib'):
        mmaib.wrap_config(made)
    with pytest.raises(WrapError, match="attention 'gaet': there are"):
        mmaib.wrap_config(cfg, 'gaet')
    with pytest.raises(WrapError, match='without --where'):
        mmaib.wrap_config(cfg, at='layers.0', where='after')


def test_a_work_dir_in_python_is_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = write_original(tmp_path, 'RetinaNet')
    cfg.work_dir = 'runs/mine'
    for _ in range(2):
        made = mmaib.wrap_config(cfg, 'aib', size=SMALL)
        assert made.work_dir == './work_dirs/aib_config'
