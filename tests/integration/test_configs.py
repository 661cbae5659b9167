"""What a config says is what the paper says, and nothing else is changed."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import PARAM_SCHEDULERS
from support import CONFIGS
from support import segmentation as seg
from support.detection import COCO, aib_config, plain_config

from mmaib.cli.cfg_options import options_of
from mmaib.compat import register_config_sources
from mmaib.layers import AnchorQuantizer

ALL = sorted(
    path
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts
)


def unscoped(value):
    """Without the `_scope_` that MMEngine marks an inherited config with."""
    if isinstance(value, dict):
        return {k: unscoped(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [unscoped(v) for v in value]
    return value


def without_guards(value):
    """Without our hooks and transforms that change no number, see
    docs/reliability.md."""
    if isinstance(value, dict):
        if value.get('type') == 'mmaib.SafeCheckpointHook':
            value = {**value, 'type': 'CheckpointHook'}
        return {
            k: without_guards(v)
            for k, v in value.items()
            if k not in ('finite', 'step_seed')
        }
    if isinstance(value, list):
        check = {'type': 'mmaib.CheckFiles'}
        return [without_guards(v) for v in value if v != check]
    return value


@pytest.mark.parametrize(
    'path',
    [p for p in ALL if 'aib' in p.stem or 'stage2' in p.stem],
    ids=lambda path: path.stem,
)
def test_every_config_of_ours_is_guarded(path):
    hooks = seg.config(path).default_hooks
    assert hooks.checkpoint.type == 'mmaib.SafeCheckpointHook'
    assert hooks.finite.type == 'mmaib.FiniteCheckHook'
    assert hooks.step_seed.type == 'mmaib.StepSeedHook'


@pytest.mark.parametrize('path', ALL, ids=lambda path: path.stem)
def test_parses_with_the_fields_of_a_training(path):
    cfg = seg.config(path)
    for field in ('model', 'optim_wrapper', 'train_cfg', 'val_evaluator'):
        assert field in cfg


@pytest.mark.parametrize('name', ['aib', 'aib-qt'])
def test_the_coco_configs_change_nothing_but_the_model(name):
    plain, ours = (
        Config(unscoped(cfg.to_dict()))
        for cfg in (plain_config(), aib_config(name))
    )
    assert set(ours) - set(plain) == {'custom_imports', 'randomness'}
    for field, value in plain.items():
        if field != 'model':
            assert without_guards(ours[field]) == value, field
    for part in ('backbone', 'rpn_head', 'train_cfg', 'test_cfg'):
        assert ours.model[part] == plain.model[part]
    assert ours.model.neck.neck == plain.model.neck


def test_the_papers_numbers():
    model = aib_config('aib-qt').model
    assert model.test_draws == dict(attention=4, latent=1, seed=0)
    assert model.roi_head.bbox_head.latent.beta == 0.01
    bottleneck = model.neck.bottleneck
    assert bottleneck.quantizer == dict(
        num_anchors=20, vq_weight=0.4, commit_weight=0.1
    )
    assert bottleneck.attention == dict(
        std_source='feature', std_kernel=1, logit_norm=True
    )
    literal = aib_config('aib-qt-literal').model.neck.bottleneck
    assert not literal.attention.logit_norm
    assert bottleneck.modulation.mode == 'scale_residual'
    assert aib_config('aib').model.neck.bottleneck.quantizer is None


@pytest.mark.parametrize(
    'path',
    [
        COCO / 'aib_faster-rcnn_r50_fpn_1x_coco.py',
        seg.UPERNET / f'aib_{seg.BEIT}',
        CONFIGS / '_base_' / 'models' / 'vgg16-aib_cifar.py',
    ],
    ids=lambda path: path.stem,
)
def test_the_whole_method_shows_in_thirty_lines(path):
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize(
    'path', [p for p in ALL if '-qt' in p.stem], ids=lambda path: path.stem
)
def test_qt_is_the_same_and_a_quantizer(path):
    ours = seg.config(path).to_dict()
    plain = seg.config(path.with_name(path.name.replace('-qt', '')))
    plain = plain.to_dict()
    assert ours['model']['neck']['bottleneck'].pop('quantizer')
    assert not plain['model']['neck']['bottleneck'].pop('quantizer', None)
    if path.stem == 'vgg16-aib-qt_1xb128-200e-released_cifar10':
        # one more slow epoch in the authors' code
        del ours['param_scheduler'], plain['param_scheduler']
    assert ours == plain


def read_config(path):
    """One of mmseg's configs."""
    register_config_sources()
    return Config(unscoped(get_config(f'mmseg::{path}').to_dict()))


def our_config(path):
    return Config(unscoped(seg.config(CONFIGS / path).to_dict()))


def test_our_copies_of_mmsegs_bases_are_mmsegs(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = ['mmseg::_base_/datasets/ade20k.py',"
        "'mmseg::_base_/default_runtime.py']"
    )
    theirs = unscoped(seg.config(child).to_dict())
    for name in ('datasets/ade20k', 'default_runtime_seg'):
        ours = our_config(f'_base_/{name}.py')
        for field, value in ours.items():
            # whose uncertainty is of what is merged: mmaib.SegTTAModel
            if field not in ('randomness', 'tta_model'):
                assert without_guards(value) == theirs[field], field


def test_the_512_baseline_is_mmsegs_640_but_for_what_the_size_asks():
    theirs = read_config('beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py')
    ours = our_config(
        'segmentation/upernet/beit-base_upernet_8xb2-160k_ade20k-512x512.py'
    )
    row = (CONFIGS / 'segmentation/upernet/README.md').read_text()
    (options,) = re.findall(r'`--cfg-options (\S+ \S+)`', row)
    ours.merge_from_dict(options_of(options.split()))
    model = ours.model
    size = [512, 512]  # unscoped() makes lists of tuples
    preprocessor = model.pop('data_preprocessor')
    assert preprocessor.pop('size') == size
    assert preprocessor.pop('test_cfg') == dict(size=size)
    base_preprocessor = theirs.model.pop('data_preprocessor')
    assert base_preprocessor.pop('size') == [640, 640]
    assert preprocessor == base_preprocessor
    assert model.backbone.pop('type') == 'mmaib.AIBBEiT'
    assert theirs.model.backbone.pop('type') == 'BEiT'
    assert model.backbone.pop('img_size') == size
    assert theirs.model.backbone.pop('img_size') == [640, 640]
    # written out, where mmseg relies on the neck's default
    assert model.neck.pop('norm_cfg') == dict(
        type='SyncBN', requires_grad=True
    )
    test_cfg = model.pop('test_cfg')
    assert test_cfg == dict(mode='slide', crop_size=size, stride=[341, 341])
    theirs.model.pop('test_cfg')
    assert model == theirs.model
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert ours.optim_wrapper.paramwise_cfg == dict(
        num_layers=12, decay_rate=0.9, decay_type='layer_wise'
    )
    for field in (
        'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg',
        'default_hooks',
    ):  # fmt: skip
        assert without_guards(ours[field]) == theirs[field], field
    assert ours.train_dataloader.batch_size == 2


def test_the_ade20k_configs_change_nothing_but_the_model():
    rest = 'beit-base_upernet_8xb2-160k_ade20k-512x512.py'
    plain = our_config(f'segmentation/upernet/{rest}')
    ours = our_config(f'segmentation/upernet/aib-qt_{rest}')
    assert set(ours) == set(plain)
    custom = ours.optim_wrapper.paramwise_cfg.pop('custom_keys')
    assert custom == {'encoder.std': dict(lr_mult=0.01)}
    for field, value in plain.items():
        if field != 'model':
            assert ours[field] == value, field
    for part in ('backbone', 'auxiliary_head', 'test_cfg'):
        assert ours.model[part] == plain.model[part]
    assert ours.model.neck.neck == plain.model.neck
    head = ours.model.decode_head
    for field in ('type', 'latent'):
        head.pop(field)
    plain.model.decode_head.pop('type')
    assert head == plain.model.decode_head


def test_the_papers_numbers_of_segmentation():
    cfg = our_config(f'segmentation/upernet/aib-qt_{seg.BEIT}')
    assert cfg.model.test_draws == dict(attention=2, latent=1, seed=0)
    assert cfg.model.decode_head.latent.beta == 0.01
    assert cfg.model.neck.map == 'shared'
    assert cfg.model.neck.bottleneck.quantizer == dict(
        num_anchors=20, vq_weight=0.4, commit_weight=0.1
    )
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.65
    assert cfg.train_cfg.max_iters == 160000


@pytest.mark.parametrize('name', ['aib', 'aib-qt'])
def test_the_literal_configs_are_without_what_is_ours(name):
    literal = our_config(f'segmentation/upernet/{name}-literal_{seg.BEIT}')
    ours = our_config(f'segmentation/upernet/{name}_{seg.BEIT}')
    plain = our_config(f'segmentation/upernet/{seg.BEIT}')
    attention = literal.model.neck.bottleneck.attention
    assert attention.pop('logit_norm') is False
    assert ours.model.neck.bottleneck.attention.pop('logit_norm') is True
    assert literal.model == ours.model
    groups = literal.optim_wrapper.paramwise_cfg
    assert groups.pop('custom_keys') == {}
    assert literal.optim_wrapper == plain.optim_wrapper


@pytest.mark.parametrize(
    'path',
    [p for p in ALL if 'sample' not in p.parts],
    ids=lambda path: path.stem,
)
def test_auto_scale_lr_knows_the_batch_of_an_iteration(path):
    """The name tells it, or it is mmdet's 1x: 8 GPUs, 2 images each."""
    told = re.search(r'_(\d+)xb(\d+)-', path.stem)
    gpus, images = map(int, told.groups()) if told else (8, 2)
    assert seg.config(path).auto_scale_lr.base_batch_size == gpus * images


def test_accumulation_makes_as_many_updates_of_as_many_images():
    one = our_config(f'segmentation/upernet/aib-qt_{seg.BEIT}')
    two = our_config(
        'segmentation/upernet/'
        'aib-qt_beit-base_upernet_4xb2-accum2-160k_ade20k-512x512.py'
    )
    counts = two.optim_wrapper.pop('accumulative_counts')
    assert counts == 2
    assert two.optim_wrapper == one.optim_wrapper
    for a, b in zip(one.param_scheduler, two.param_scheduler):
        assert a.type == b.type
        assert b.end == counts * a.end
    for field in ('max_iters', 'val_interval'):
        assert two.train_cfg[field] == counts * one.train_cfg[field]


def test_our_copy_of_mmpretrains_runtime_is_mmpretrains():
    register_config_sources()
    theirs = unscoped(
        get_config('mmpretrain::_base_/default_runtime.py').to_dict()
    )
    ours = without_guards(
        our_config('_base_/default_runtime_cls.py').to_dict()
    )
    assert ours.pop('randomness') == {
        **theirs.pop('randomness'), 'diff_rank_seed': True
    }  # fmt: skip
    checkpoint = ours['default_hooks'].pop('checkpoint')
    assert checkpoint == dict(
        type='CheckpointHook', max_keep_ckpts=1, save_best='auto'
    )
    assert theirs['default_hooks'].pop('checkpoint') == dict(
        type='CheckpointHook', interval=1
    )
    assert ours == theirs


def rates(cfg, epochs):
    """Learning rates of the first epochs."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], **{
        k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != 'type'
    })  # fmt: skip
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer))
        for s in cfg.param_scheduler
    ]
    found = []
    for _ in range(epochs):
        found.append(pytest.approx(optimizer.param_groups[0]['lr']))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


CLASSIFIERS = {'vgg16': 20, 'wrn28-10': 50}


@pytest.mark.parametrize('name', CLASSIFIERS)
@pytest.mark.parametrize('data', ['cifar10', 'cifar100', 'svhn'])
def test_the_papers_numbers_of_classification(name, data):
    path = f'classification/{name}/{name}-aib-qt_1xb128-200e_{data}.py'
    ours = our_config(path)
    plain = our_config(path.replace('-aib-qt', ''))
    for field, value in plain.items():
        if field != 'model':
            assert ours[field] == value, field
    assert ours.model.test_draws == dict(attention=4, latent=4, seed=0)
    bottleneck = ours.model.neck.bottleneck
    quantizer = AnchorQuantizer(**bottleneck.quantizer)
    assert quantizer.num_anchors == CLASSIFIERS[name]
    assert (quantizer.vq_weight, quantizer.commit_weight) == (0.4, 0.1)
    assert bottleneck.modulation.mode == 'scale_residual'
    assert bottleneck.attention.std_kernel == 3
    head = ours.model.head
    assert (head.latent_channels, head.latent.beta) == (256, 0.01)
    assert head.num_classes == (100 if data == 'cifar100' else 10)
    assert ours.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    assert ours.train_cfg.max_epochs == 200
    batches = (
        ours.train_dataloader.batch_size, ours.val_dataloader.batch_size
    )  # fmt: skip
    assert batches == (128, 100)
    schedule = ours.param_scheduler
    if name == 'vgg16':
        assert (schedule.step_size, schedule.gamma) == (25, 0.5)
    else:
        assert schedule.milestones == [60, 120, 180]
        assert schedule.gamma == 0.3


@pytest.mark.parametrize(('name', 'anchors'), [('vgg16', 20), ('wrn50-2', 50)])
def test_the_papers_numbers_of_cub(name, anchors):
    ours = our_config(
        f'classification/{name}/{name}-aib-qt_1xb16-200e_cub-224x224.py'
    )
    assert ours.model.neck.bottleneck.quantizer.num_anchors == anchors
    assert ours.model.test_draws == dict(attention=4, latent=4, seed=0)
    assert ours.optim_wrapper.optimizer == dict(type='Adam', lr=1e-4)
    assert ours.train_cfg.max_epochs == 200
    assert ours.train_dataloader.batch_size == 16
    assert ours.val_dataloader.batch_size == 4
    for loader in (ours.train_dataloader, ours.val_dataloader):
        crops = [t['type'] for t in loader.dataset.pipeline]
        assert 'mmaib.CropToBox' in crops


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_the_authors_code_differs_from_the_paper_where_it_is_said(name):
    path = f'classification/{name}/{name}-aib_1xb128-200e{{}}_cifar10.py'
    paper, released = (
        our_config(path.format(kind)) for kind in ('', '-released')
    )
    attention = released.model.neck.bottleneck.attention
    assert attention.pop('std_source') == 'mean'
    assert paper.model.neck.bottleneck.attention.pop('std_source') == 'feature'
    if name == 'wrn28-10':
        # a score a class and three norms in the map, dropout everywhere
        assert attention.pop('logit_norm') == 'batch'
        assert attention.mean_trunk.pop('last_conv') == 10
        parts = attention.mean_trunk, released.model.backbone
        for part in (*parts, released.model.neck.neck):
            assert part.pop('dropout') == 0.3
        assert released.model.head.pop('latent_channels') == 512
        paper.model.head.pop('latent_channels')
        custom = released.optim_wrapper.pop('paramwise_cfg').custom_keys
        assert custom == {'quantizer.anchors': dict(lr_mult=1e-4)}
        schedule = released.param_scheduler
        assert schedule.milestones == [60, 120, 160]
        assert schedule.gamma == 0.2
    else:
        *_, steps = released.param_scheduler
        assert rates(released, 28) == [0.01] + [0.1] * 24 + [0.05] * 3
        assert steps == paper.param_scheduler
        quantized = our_config(
            path.format('-released').replace('-aib', '-aib-qt')
        )
        assert rates(quantized, 4) == [0.001, 0.01, 0.1, 0.1]
        for part in (released.model.backbone, released.model.neck.neck):
            layers = [init.layer for init in part.pop('init_cfg')]
            assert layers == ['Conv2d', 'BatchNorm2d']
        released.pop('initial')
    for field in paper:
        if field != 'param_scheduler':
            assert released[field] == paper[field], field


@pytest.mark.parametrize('name', ['vgg16', 'wrn50-2'])
def test_the_authors_code_on_cub(name):
    path = f'classification/{name}/{name}-aib_1xb16-200e{{}}_cub-224x224.py'
    paper, released = (
        our_config(path.format(kind)) for kind in ('', '-released')
    )
    assert released.optim_wrapper.optimizer == dict(
        paper.optim_wrapper.optimizer, betas=[0.5, 0.999]
    )
    schedule = released.param_scheduler
    assert (schedule.step_size, schedule.gamma) == (2, 0.97)
    for loader, crop in (('train', 'RandomCrop'), ('test', 'CenterCrop')):
        steps = released[f'{loader}_dataloader'].dataset.pipeline
        resize = next(s for s in steps if s['type'] == 'Resize')
        assert resize['scale'] == [256, 256]
        assert dict(type=crop, crop_size=224) in steps
    if name == 'vgg16':
        assert released.model.head.pool_size == 3
    else:
        attention = released.model.neck.bottleneck.attention
        assert attention.mean_trunk.init_cfg is None
        assert paper.model.neck.bottleneck.attention.mean_trunk.init_cfg


@pytest.mark.parametrize('name', ['vgg16', 'vgg16-aib-qt', 'wrn28-10-aib'])
def test_the_cross_domain_test_changes_the_test_set_alone(name):
    folder = f'classification/{name.split("-aib")[0]}/{name}_1xb128-200e_'
    plain = our_config(f'{folder}cifar10.py')
    cross = our_config(f'{folder}cifar10-to-stl10.py')
    data = cross.test_dataloader.pop('dataset')
    plain.test_dataloader.pop('dataset')
    assert cross.to_dict() == plain.to_dict()
    assert data.type == 'mmaib.STL10'
    # only raw indices fit the paper's errors
    assert data.label_space == 'stl10'


@pytest.mark.parametrize('data', ['trees', 'bccd', 'camvid'])
def test_arms_of_a_comparison_see_the_data_in_the_same_order(data):
    """`diff_rank_seed` changes the sampler's seed."""
    paths = [*CONFIGS.glob(f'sample/{data}/*.py')]
    base = 'upernet' if data == 'camvid' else 'faster-rcnn'
    assert {path.stem.split('_')[0] for path in paths} >= {
        base, 'aib', 'aib-qt', 'aib-literal', 'aib-qt-literal', 'gate',
        'readout',
    }  # fmt: skip
    first, *others = [Config.fromfile(path).randomness for path in paths]
    assert all(other == first for other in others)
