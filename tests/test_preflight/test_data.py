import json

import pytest
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.registry import init_default_scope

from mmaib import preflight


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


def annotated(tmp_path, content, **fields):
    (tmp_path / 'train.json').write_text(json.dumps(content))
    init_default_scope('mmdet')
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path), ann_file='train.json'
    )
    dataset.update(fields)
    return Config(dict(train_dataloader=dict(dataset=dataset)))


COCO_FILE = dict(
    images=[dict(id=1, file_name='a.jpg', width=40, height=30)],
    annotations=[],
    categories=[dict(id=1, name='cell')],
)


def test_annotations_as_the_base_model_takes_them(tmp_path):
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
    filters = dict(
        metainfo=dict(classes=('cell',)), filter_cfg=dict(filter_empty_gt=True)
    )
    cfg = annotated(tmp_path, COCO_FILE, **filters, test_mode=True)
    preflight.check_annotations(cfg, ('train_dataloader',))
    cfg = annotated(tmp_path, COCO_FILE, **filters)
    with pytest.raises(ValueError, match=r'ann_file: .*none is left'):
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
    # its class does so by default
    cifar = dict(type='CIFAR10', data_root='nowhere')
    cfg = Config(
        dict(default_scope='mmpretrain', train_dataloader=dict(dataset=cifar))
    )
    preflight.check_data(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset.download = False
    with pytest.raises(FileNotFoundError, match="data_root: 'nowhere'"):
        preflight.check_data(cfg, ('train_dataloader',))
