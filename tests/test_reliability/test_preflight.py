import json

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.registry import MODEL_WRAPPERS, MODELS, init_default_scope

from mmaib.aux_losses import with_aux_losses
from mmaib.layers import AttentiveBottleneck, GaussianEncoder
from mmaib.reliability import launch, preflight
from mmaib.testing import segmentation as seg
from mmaib.testing.detection import COCO


def data_config(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/train.json').write_text(json.dumps({}))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/train.json',
    )
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset)
    return Config(dict(train_dataloader=dict(dataset=repeated)))


def test_data_that_are_there(tmp_path):
    preflight.check_data(
        data_config(tmp_path), ('train_dataloader', 'val_dataloader')
    )


@pytest.mark.parametrize(
    ('field', 'value'),
    [('data_root', '/no/such/folder'), ('ann_file', 'annotations/none.json')],
)
def test_data_that_are_not(tmp_path, field, value):
    cfg = data_config(tmp_path)
    cfg.train_dataloader.dataset.dataset[field] = value
    with pytest.raises(
        FileNotFoundError,
        match=rf'train_dataloader\.dataset\.dataset\.{field}.*{value}',
    ):
        preflight.check_data(cfg, ('train_dataloader',))


def test_folders_of_a_segmentation_data_set(tmp_path):
    (tmp_path / 'images').mkdir()
    prefix = dict(img_path='images', seg_map_path='labels')
    dataset = dict(data_root=str(tmp_path), data_prefix=prefix)
    cfg = Config(dict(val_dataloader=dict(dataset=dataset)))
    with pytest.raises(
        FileNotFoundError,
        match=r"val_dataloader\.dataset\.data_prefix\.seg_map_path: '.*labels",
    ):
        preflight.check_data(cfg, ('val_dataloader',))
    (tmp_path / 'labels').mkdir()
    preflight.check_data(cfg, ('val_dataloader',))


@pytest.mark.parametrize(
    ('cfg', 'field'),
    [
        (dict(load_from='no.pth'), 'load_from'),
        (dict(model=dict(pretrained='no.pth')), 'model.pretrained'),
        (
            dict(
                model=dict(
                    backbone=dict(
                        init_cfg=dict(type='Pretrained', checkpoint='no.pth')
                    )
                )
            ),
            'model.backbone.init_cfg.checkpoint',
        ),
    ],
)
def test_weights_that_are_not_there(cfg, field):
    with pytest.raises(FileNotFoundError, match=f"{field}: 'no.pth'"):
        preflight.check_weights(Config(cfg))


@pytest.mark.parametrize('name', ['torchvision://resnet50', True])
def test_weights_that_are_remote(name):
    preflight.check_weights(Config(dict(model=dict(pretrained=name))))


def test_weights_that_are_there(tmp_path, monkeypatch):
    cfg = Config(dict(load_from=str(tmp_path / 'weights.pth')))
    torch.save(dict(state_dict={}), cfg.load_from)
    preflight.check_weights(cfg)
    monkeypatch.setenv('HOME', str(tmp_path))
    preflight.check_weights(Config(dict(load_from='~/weights.pth')))
    (tmp_path / 'weights.pth').write_bytes(b'<html>not found</html>')
    with pytest.raises(ValueError, match=r"load_from: '.*not a whole.*22 byt"):
        preflight.check_weights(cfg)


class Saved(torch.nn.Module):
    def __init__(self, width=2, **buffers):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        for name, value in buffers.items():
            self.register_buffer(name, value)


class Keeping(Saved):
    def get_extra_state(self):
        return dict(kept=1)

    def set_extra_state(self, state):
        pass


def resuming(tmp_path, model):
    torch.save(
        dict(state_dict=model.state_dict(), optimizer={}),
        tmp_path / 'iter_2.pth',
    )
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    return Config(dict(resume=True, work_dir=str(tmp_path)))


def test_resuming_the_same_model(tmp_path):
    cfg = resuming(tmp_path, Saved())
    preflight.check_resume(cfg, Saved())
    preflight.check_resume(cfg, Wrapped(Saved()))
    # a buffer that the code has gained since is no parameter
    preflight.check_resume(cfg, Saved(steps=torch.zeros(1)))
    # and what a module keeps beside its tensors is no parameter either
    cfg = resuming(tmp_path, Keeping())
    preflight.check_resume(cfg, Keeping())
    # nothing was saved yet, or nothing is asked for
    preflight.check_resume(
        Config(dict(resume=True, work_dir=str(tmp_path / 'new'))), Saved()
    )
    preflight.check_resume(Config(dict(resume=False)), Saved(3))


def test_resuming_another_model(tmp_path):
    cfg = resuming(tmp_path, Saved())
    with pytest.raises(
        ValueError, match=r'another model.*\n  weight is \(2,\) in it, \(3,\)'
    ):
        preflight.check_resume(cfg, Saved(3))
    cfg = resuming(tmp_path, Saved(gate=torch.ones(1)))
    with pytest.raises(ValueError, match='gate is only in it'):
        preflight.check_resume(cfg, Saved())
    grown = Saved()
    grown.anchors = torch.nn.Parameter(torch.ones(20))
    with pytest.raises(ValueError, match='anchors is not in it'):
        preflight.check_resume(cfg, grown)


def test_resuming_what_is_not_whole(tmp_path):
    cfg = resuming(tmp_path, Saved())
    whole = (tmp_path / 'iter_2.pth').read_bytes()
    (tmp_path / 'iter_2.pth').write_bytes(whole[:-9])
    with pytest.raises(ValueError, match='not a whole.*No other checkpoint'):
        preflight.check_resume(cfg, Saved())
    (tmp_path / 'iter_1.pth').write_bytes(whole)
    with pytest.raises(ValueError, match=r'--resume .*iter_1\.pth'):
        preflight.check_resume(cfg, Saved())
    torch.save(dict(model={}), tmp_path / 'iter_2.pth')
    with pytest.raises(
        ValueError, match='no checkpoint of a training.*iter_1'
    ):
        preflight.check_resume(cfg, Saved())
    # a host's hook that was killed while it wrote the name
    (tmp_path / 'last_checkpoint').write_text('')
    with pytest.raises(FileNotFoundError, match=r"'' is not there.*iter_1"):
        preflight.check_resume(cfg, Saved())


def test_the_seed_of_what_is_resumed(tmp_path):
    path = tmp_path / 'iter_2.pth'
    torch.save(dict(state_dict={}, meta=dict(seed=7)), path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    own = dict(seed=None, diff_rank_seed=True)
    latest = dict(resume=True, work_dir=str(tmp_path), randomness=own)
    elsewhere = str(tmp_path / 'elsewhere')
    named = dict(latest, work_dir=elsewhere, load_from=str(path))
    other = dict(latest, randomness=dict(own, seed=3))
    for fields in (latest, named, other):
        cfg = Config(fields)
        preflight.take_seed(cfg)
        assert cfg.randomness == dict(seed=7, diff_rank_seed=True)
    # weights alone, a new training, and what MMEngine itself reads
    for fields in (
        dict(latest, resume=False),
        dict(latest, work_dir=elsewhere),
        dict(latest, load_from='http://host/iter_2.pth'),
    ):
        cfg = Config(fields)
        preflight.take_seed(cfg)
        assert cfg.randomness == own
    cfg = Config(dict(latest, load_from='no.pth'))
    preflight.check_weights(cfg)
    with pytest.raises(FileNotFoundError, match="resume: 'no.pth' is not"):
        preflight.take_seed(cfg)


def test_beits_weights_are_told_with_their_converter():
    cfg = seg.config(seg.UPERNET / seg.BEIT)
    with pytest.raises(
        FileNotFoundError, match=r'model.pretrained.*beit2mmseg\.py'
    ):
        preflight.check_weights(cfg)


def test_an_evaluators_annotations_that_are_not(tmp_path):
    cfg = data_config(tmp_path)
    cfg.train_evaluator = [dict(type='CocoMetric', ann_file='/no/val.json')]
    with pytest.raises(
        FileNotFoundError, match=r"train_evaluator\.0\.ann_file: '/no/val"
    ):
        preflight.check_data(cfg, ('train_dataloader',))


@pytest.fixture
def mapped(tmp_path):
    """The `backend_args` of a store whose paths begin with /store, and are
    files in a folder of the test."""

    class Store(LocalBackend):
        def _path(self, path):
            return str(path).replace('/store', str(tmp_path), 1)

        def exists(self, filepath):
            return super().exists(self._path(filepath))

        def get_text(self, filepath, encoding='utf-8'):
            return super().get_text(self._path(filepath), encoding)

    register_backend('store', Store, force=True)
    return dict(backend='store')


def test_data_behind_a_backend(tmp_path, mapped):
    (tmp_path / 'images').mkdir()
    cfg = annotated(
        tmp_path,
        COCO_FILE,
        data_root='/store',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('cell',)),
        backend_args=mapped,
    )
    loaders = ('train_dataloader',)
    field = r'train_dataloader\.dataset\.'
    metric = dict(ann_file='/store/train.json', backend_args=mapped)
    cfg.train_evaluator = dict(metric)
    preflight.check_data(cfg, loaders)
    preflight.check_annotations(cfg, loaders)

    # annotations on this disk, images there, as their transform says
    dataset = cfg.train_dataloader.dataset
    dataset.ann_file = str(tmp_path / 'train.json')
    del dataset['backend_args']
    dataset.pipeline = [dict(type='LoadImageFromFile', backend_args=mapped)]
    preflight.check_data(cfg, loaders)
    preflight.check_annotations(cfg, loaders)
    dataset.data_prefix.img = 'none'
    with pytest.raises(FileNotFoundError, match=f'{field}data_prefix.img:'):
        preflight.check_data(cfg, loaders)

    # the transform is not asked for annotations
    dataset.data_prefix.img, dataset.ann_file = 'images', 'train.json'
    with pytest.raises(FileNotFoundError, match=f'{field}ann_file:'):
        preflight.check_data(cfg, loaders)
    dataset.backend_args = mapped
    for name in ('ann_file', 'data_root'):
        there, dataset[name] = dataset[name], '/store/none'
        with pytest.raises(FileNotFoundError, match=f'{field}{name}: '):
            preflight.check_data(cfg, loaders)
        dataset[name] = there
    cfg.train_evaluator.ann_file = '/store/none.json'
    with pytest.raises(FileNotFoundError, match='train_evaluator.ann_file: '):
        preflight.check_data(cfg, loaders)
    cfg.train_evaluator = dict(metric)
    dataset.metainfo.classes = ('leaf',)
    with pytest.raises(ValueError, match=f'{field}ann_file: .*none of the'):
        preflight.check_annotations(cfg, loaders)


def test_a_backend_that_cannot_be_asked_is_believed(tmp_path):
    cfg = data_config(tmp_path)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.update(data_root='/none', backend_args=dict(backend='http'))
    preflight.check_data(cfg, ('train_dataloader',))


@pytest.mark.parametrize('ann_file', [None, '', 'http://host/train.json'])
def test_annotations_that_are_no_local_file(tmp_path, ann_file):
    cfg = data_config(tmp_path)
    cfg.train_dataloader.dataset.dataset.ann_file = ann_file
    preflight.check_data(cfg, ('train_dataloader',))


class Host(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bottleneck = AttentiveBottleneck(4)

    def loss(self):
        return {}


def test_a_model_that_does_not_collect():
    with pytest.raises(TypeError, match="bottleneck.*base='Host'"):
        preflight.check_collects(Host())
    outer = torch.nn.Module()
    outer.student = with_aux_losses(Host)()
    preflight.check_collects(outer)
    outer.teacher = Host()
    with pytest.raises(TypeError, match=r'teacher\.bottleneck'):
        preflight.check_collects(outer)
    preflight.check_collects(torch.nn.Linear(1, 1))


class OwnEncoder(GaussianEncoder):
    """A user's, from a module of theirs."""


def test_a_layer_of_ones_own_that_would_not_be_heard():
    head = torch.nn.Module()
    head.latent = OwnEncoder(2, 3)
    with pytest.raises(TypeError, match=r'latent \(OwnEncoder\)'):
        preflight.check_collects(head)


def test_a_host_that_is_not_installed(monkeypatch):
    preflight.check_host('mmdet')
    preflight.check_host(None)
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='mmdet.*pip install'):
        preflight.check_host('mmdet')


def test_a_config_whose_host_is_missing(monkeypatch):
    """Every config of ours has a host's as its base, so parsing comes first
    to know."""
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda name: False
    )
    args = launch.argument_parser(None).parse_args(
        [str(COCO / 'aib_faster-rcnn_r50_fpn_1x_coco.py')]
    )
    with pytest.raises(
        ModuleNotFoundError, match='mmdet is not installed: pip install'
    ):
        launch.load_config(args)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            dict(runner_type='FlexibleRunner'),
            "runner_type='FlexibleRunner'.*tools need",
        ),
        (
            dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
            r'model_wrapper_cfg\.type=.MMFully.*the shard of rank 0',
        ),
    ],
)
def test_runners_that_shard_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        launch.build_runner(Config(fields), ())


@MODEL_WRAPPERS.register_module(name='WrapperOfThisTest', force=True)
class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    'path',
    [
        seg.UPERNET / seg.BEIT,
        seg.DEEPLAB / 'aib_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
    ],
    ids=['upernet', 'deeplab'],
)
def test_batch_norm_on_a_single_image(path):
    cfg = seg.shrink(seg.config(path))
    segmentor = seg.build(cfg)
    with pytest.raises(
        ValueError, match=r'batch_size=1.*model\.decode_head\.norm_cfg'
    ):
        preflight.check_batch(segmentor, 1)
    preflight.check_batch(segmentor, 2)
    with pytest.raises(ValueError, match=r'model\.decode_head\.norm_cfg'):
        preflight.check_batch(Wrapped(segmentor), 1)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        seg.loss(segmentor, seg.inputs(((64, 64),)))
    # what the message advises, at full width
    head = seg.config(path).model.decode_head
    head.norm_cfg.update(type='GN', num_groups=16)
    init_default_scope('mmseg')
    with torch.device('meta'):
        preflight.check_batch(MODELS.build(head), 1)


def annotated(tmp_path, content, **fields):
    (tmp_path / 'train.json').write_text(json.dumps(content))
    init_default_scope('mmdet')
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path), ann_file='train.json'
    )
    dataset.update(fields)
    return Config(dict(train_dataloader=dict(dataset=dataset)))


COCO_FILE = dict(
    images=[], annotations=[], categories=[dict(id=1, name='cell')]
)


def test_annotations_as_the_host_takes_them(tmp_path):
    import mmdet.datasets

    classes = tmp_path / 'classes.txt'
    classes.write_text('cell\n')
    without = {k: v for k, v in COCO_FILE.items() if k != 'annotations'}
    for content, fields in (
        (COCO_FILE, dict(metainfo=dict(classes=('cell',)))),
        (COCO_FILE, dict(metainfo=dict(classes=str(classes)))),
        (without, dict(metainfo=dict(classes=('cell',)), test_mode=True)),
        ([], dict(type='CocoPanopticDataset')),
        ([], dict(type='NoSuchDataset')),
    ):
        cfg = annotated(tmp_path, content, **fields)
        preflight.check_annotations(cfg, ('train_dataloader',))
    cfg = annotated(tmp_path, COCO_FILE)
    cfg.train_dataloader.dataset.type = mmdet.datasets.CocoDataset
    with pytest.raises(
        ValueError, match=r'train_dataloader\.dataset\.ann_file: .*none of'
    ):
        preflight.check_annotations(cfg, ('train_dataloader',))


def test_data_sets_of_mmpretrain(tmp_path):
    """A data_prefix may be plain text, and a data set may download itself."""
    dataset = dict(data_root=str(tmp_path), data_prefix='train')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(
        FileNotFoundError,
        match=r"train_dataloader\.dataset\.data_prefix: '.*train' does not",
    ):
        preflight.check_data(cfg, ('train_dataloader',))
    (tmp_path / 'train').mkdir()
    preflight.check_data(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset = dict(data_root='nowhere', download=True)
    preflight.check_data(cfg, ('train_dataloader',))
