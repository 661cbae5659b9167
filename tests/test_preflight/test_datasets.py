"""Data sets as they are built, against the head and the metric."""

import json
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from mmaib import preflight
from mmaib.preflight import datasets, samples

TRAIN, VAL = 'train_dataloader', 'val_dataloader'


class Head(nn.Module):
    def __init__(self, num_classes, **fields):
        super().__init__()
        self.num_classes = num_classes
        for name, value in fields.items():
            setattr(self, name, value)


class Built:
    """What of a Runner the checks use."""

    build_dataloader = staticmethod(Runner.build_dataloader)
    seed = 0
    _randomness_cfg: dict = {}

    def __init__(self, cfg, **heads):
        self.model = nn.Module()
        for name, head in heads.items():
            setattr(self.model, name, head)
        self._train_dataloader = cfg.get(TRAIN)
        self._val_dataloader = cfg.get(VAL)


def look(cfg, loaders=(TRAIN, VAL), **heads):
    cfg = Config(cfg)
    return preflight.check_datasets(Built(cfg, **heads), cfg, loaders)


def loader(dataset):
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='InfiniteSampler'),
        dataset=dataset,
    )


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def said(monkeypatch):
    lines = []
    for module in (datasets, samples):
        monkeypatch.setattr(module, 'warn', lines.append)
    return lines


@pytest.fixture
def folders(tmp_path):
    init_default_scope('mmpretrain')
    for split in ('train', 'val'):
        for name in 'abc':
            for i in range(2):
                path = tmp_path / split / name / f'{i}.png'
                save(path, np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def classifier(root, **fields):
    def dataset(split):
        return dict(
            type='CustomDataset',
            serialize_data=False,
            data_root=str(root),
            data_prefix=split,
            pipeline=[dict(type='LoadImageFromFile')],
            **fields,
        )

    return {TRAIN: loader(dataset('train')), VAL: loader(dataset('val'))}


def test_folders_of_images(folders, said):
    built = look(classifier(folders), head=Head(3))
    assert len(built[TRAIN].dataset) == len(built[VAL].dataset) == 6
    look(classifier(folders))
    assert not said
    look(classifier(folders), head=Head(5))
    assert said[0].startswith(f'model.head.num_classes=5, and {TRAIN}.dataset')
    with pytest.raises(ValueError, match=r'head\.num_classes=2.*: set it to'):
        look(classifier(folders), head=Head(2))
    # a model that reads its classes as text
    look(classifier(folders), head=Head(2), text_encoder=nn.Identity())


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX', '@eaDir'])
def test_folders_that_no_one_means(folders, name):
    shutil.copytree(folders / 'train/a', folders / 'train' / name)
    with pytest.raises(
        ValueError,
        match=rf"{TRAIN}\.dataset\.data_prefix: 1 of 4 folders .*'{name}'",
    ):
        look(classifier(folders), head=Head(4))


def test_a_class_that_training_lacks(folders, said):
    shutil.rmtree(folders / 'train/a')
    with pytest.raises(
        ValueError,
        match=rf"{VAL}\.dataset: 2 classes .*\(first: 'b', 1 here and 0 there",
    ):
        look(classifier(folders), head=Head(3))
    said.clear()
    shutil.copytree(folders / 'val/a', folders / 'train/a')
    shutil.rmtree(folders / 'train/c')
    look(classifier(folders), head=Head(3))
    assert f"{VAL}.dataset: training has no class ['c']" in said


def test_two_classes_of_one_name(folders, said):
    """ImageNet has two cranes."""
    look(classifier(folders, classes=['x', 'crane', 'crane']), head=Head(3))
    assert not said


def test_names_in_another_order_than_the_folders(folders):
    look(classifier(folders, classes=['x', 'y', 'z']), head=Head(3))
    with pytest.raises(ValueError, match='in the order of the folders'):
        look(classifier(folders, classes=['b', 'a', 'c']), head=Head(3))


def test_labels_and_files_of_a_list(folders):
    for split in ('train', 'val'):
        (folders / f'{split}.txt').write_text(
            'a/0.png 0\na/1.png 3\nb/0.png 2'
        )
    cfg = classifier(folders)
    for name, split in ((TRAIN, 'train'), (VAL, 'val')):
        cfg[name]['dataset']['ann_file'] = f'{split}.txt'
    look(cfg, head=Head(4))
    with pytest.raises(
        ValueError,
        match=r"1 of 3 entries have labels outside 0 to 2 .*a/1\.png: 3'",
    ):
        look(cfg, head=Head(3))
    (folders / 'train/b/0.png').unlink()
    with pytest.raises(
        ValueError, match=r'1 of 3 entries have no file for img_path .*b/0\.p'
    ):
        look(cfg, head=Head(4))
    cfg[TRAIN]['dataset']['pipeline'].insert(
        0, dict(type='mmaib.CheckFiles', broken='skip')
    )
    look(cfg, head=Head(4))


def test_topk_above_the_classes(folders):
    cfg = classifier(folders)
    cfg['val_evaluator'] = [dict(type='Accuracy', topk=(1, 5))]
    with pytest.raises(
        ValueError, match=r'val_evaluator\.0\.topk=\(1, 5\).*at most 3 fits'
    ):
        look(cfg, head=Head(3))
    look(cfg, (TRAIN,), head=Head(3))
    # of neighbours, not of classes
    cfg['val_evaluator'] = dict(type='RetrievalRecall', topk=(1, 5))
    cfg['model'] = dict(head=dict(topk=4))
    look(cfg, head=Head(3))
    cfg['model']['head']['cal_acc'] = True
    with pytest.raises(ValueError, match=r'model\.head\.topk=4'):
        look(cfg, head=Head(3))


MASK = np.zeros((6, 8), np.uint8)
MASK[1:3, 2:5] = 1


@pytest.fixture
def masks(tmp_path):
    init_default_scope('mmseg')
    for split in ('train', 'val'):
        for i in range(3):
            image = tmp_path / f'img/{split}/{i}.jpg'
            save(image, np.zeros((6, 8, 3), np.uint8))
            save(tmp_path / f'ann/{split}/{i}.png', MASK)
    return tmp_path


def segmentor(root, wrap=lambda dataset: dataset, **fields):
    def dataset(split):
        made = dict(
            type='BaseSegDataset',
            serialize_data=False,
            data_root=str(root),
            metainfo=dict(classes=('ground', 'disc')),
            data_prefix=dict(
                img_path=f'img/{split}', seg_map_path=f'ann/{split}'
            ),
            pipeline=[
                dict(type='mmaib.CheckFiles'),
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
            ],
        )
        return wrap({**made, **fields})

    return {TRAIN: loader(dataset('train')), VAL: loader(dataset('val'))}


def test_masks_as_the_head_takes_them(masks, said):
    built = look(segmentor(masks), decode_head=Head(2))
    check = built[TRAIN].dataset.pipeline.transforms[0]
    assert (check.num_classes, check.ignored) == (2, {255})
    look(segmentor(masks), decode_head=Head(2, out_channels=1, threshold=0.3))
    assert not said
    with pytest.raises(ValueError, match=r'decode_head\.num_classes=3.*to 2'):
        look(segmentor(masks), decode_head=Head(3))
    look(segmentor(masks), (TRAIN,), decode_head=Head(3))
    assert '1 outputs never learn' in said[0]


def wrappers(path):
    repeat = f'{path}.dataset.dataset'
    both = f'{path}.dataset.datasets.1'
    return [
        (lambda d: d, f'{path}.dataset'),
        (lambda d: dict(type='RepeatDataset', times=2, dataset=d), repeat),
        (
            lambda d: dict(
                type='ConcatDataset', datasets=[{**d, 'indices': 1}, d]
            ),
            both,
        ),
    ]


@pytest.mark.parametrize(('wrap', 'path'), wrappers(TRAIN))
def test_a_label_in_the_last_mask(masks, wrap, path):
    wrong = MASK.copy()
    wrong[5, 5] = 7
    save(masks / 'ann/train/2.png', wrong)
    cfg = segmentor(masks, wrap)
    with pytest.raises(
        ValueError, match=rf"{path}: 1 of 3 images .*/2\.png' .*\[7\] in 1 pix"
    ):
        look(cfg, decode_head=Head(2))
    # not among those that are used
    look(segmentor(masks, indices=2), decode_head=Head(2))
    # ignored by the loss; a metric ignores 255 too
    look(cfg, decode_head=Head(2, ignore_index=7))
    with pytest.raises(ValueError, match=rf'{path}.*\[7\]'):
        look(cfg, (TRAIN,), decode_head=Head(2, ignore_index=9))


def test_a_class_that_was_saved_as_ignored(masks, said):
    for path in masks.rglob('*.png'):
        save(path, MASK * 255)
    with pytest.raises(
        ValueError,
        match=rf'{TRAIN}.*: 3 of 3 masks .*\[0\] alone.*\[255\], which is ign',
    ):
        look(segmentor(masks), decode_head=Head(2))
    look(segmentor(masks), (VAL,), decode_head=Head(2))
    assert 'mind reduce_zero_label' in said.pop()
    for path in masks.rglob('*.png'):
        save(path, MASK)
    with pytest.raises(ValueError, match=r'masks .*\[0\] alone.*\[255\]'):
        look(segmentor(masks, reduce_zero_label=True), decode_head=Head(2))


def test_a_second_class_that_is_rare(masks, said, monkeypatch):
    monkeypatch.setattr(samples, 'IMAGES', 2)
    for i in range(2):
        save(masks / f'ann/train/{i}.png', np.full_like(MASK, 255))
        save(masks / f'ann/train/{i}.png', MASK * 255)
    look(segmentor(masks), decode_head=Head(2))
    monkeypatch.setattr(samples, 'MASKS', 2)
    save(masks / 'ann/train/2.png', MASK * 255)
    look(segmentor(masks), decode_head=Head(2))
    assert '2 of 3 masks have the labels [0] alone' in said[0]


def test_masks_that_are_not_there(masks):
    (masks / 'ann/val/1.png').unlink()
    with pytest.raises(
        ValueError,
        match=rf'{VAL}\.dataset: 1 of 3 .* for seg_map_path .*val/1\.png',
    ):
        look(segmentor(masks), decode_head=Head(2))
    cfg = segmentor(masks)
    cfg[VAL]['dataset']['pipeline'].pop()  # a test without annotations
    look(cfg, decode_head=Head(2))


@pytest.mark.parametrize('serialize_data', [True, False])
def test_a_suffix_that_no_image_has(masks, serialize_data):
    cfg = segmentor(masks, img_suffix='.JPG', serialize_data=serialize_data)
    with pytest.raises(
        ValueError,
        match=rf'{TRAIN}\.dataset \(BaseSegDataset\) has no image: '
        r"img_suffix='\.JPG'.*img/train' has 3 \.jpg",
    ):
        look(cfg, decode_head=Head(2))
    both = dict(type='ConcatDataset', datasets=[cfg[TRAIN]['dataset']])
    with pytest.raises(ValueError, match='has no image'):
        look({TRAIN: loader(both)}, decode_head=Head(2))


def test_no_image_of_a_classifier(folders):
    cfg = classifier(folders, extensions=['.jpeg'])
    with pytest.raises(
        ValueError, match=r'CustomDataset\) has no image: extensions=.*6 \.png'
    ):
        look(cfg)


@pytest.fixture
def coco(tmp_path):
    import mmdet.datasets  # noqa: F401

    init_default_scope('mmdet')
    for split in ('train', 'val'):
        images = [
            dict(id=i, file_name=f'{i}.png', width=8, height=6)
            for i in range(3)
        ]
        annotations = [
            dict(
                id=i, image_id=i, category_id=i % 2, bbox=[1, 1, 4, 3],
                area=12, iscrowd=0,
            )
            for i in range(3)
        ]  # fmt: skip
        categories = [dict(id=0, name='disc'), dict(id=1, name='bar')]
        content = dict(
            images=images, annotations=annotations, categories=categories
        )
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
        for image in images:
            path = tmp_path / split / image['file_name']
            save(path, np.zeros((6, 8, 3), np.uint8))
    return tmp_path


def detector(root, **fields):
    def dataset(split):
        made = dict(
            type='CocoDataset',
            serialize_data=False,
            data_root=str(root),
            ann_file=f'{split}.json',
            data_prefix=dict(img=split),
            metainfo=dict(classes=('disc', 'bar')),
            pipeline=[dict(type='LoadImageFromFile')],
        )
        return {**made, **fields}

    cfg = {TRAIN: loader(dataset('train')), VAL: loader(dataset('val'))}
    cfg['val_evaluator'] = dict(
        type='CocoMetric', ann_file=str(root / 'val.json')
    )
    return cfg


def test_a_detectors_classes_and_files(coco, said):
    heads = nn.Module()
    heads.bbox_head = nn.ModuleList([Head(2), Head(2)])
    look(detector(coco), roi_head=heads, rpn_head=Head(1))
    assert not said
    heads.bbox_head[1].num_classes = 80
    with pytest.raises(
        ValueError, match=rf'roi_head\.bbox_head\.1\.num_.*=80, and {VAL}\.d'
    ):
        look(detector(coco), roi_head=heads)
    assert '78 outputs never learn' in said[0]
    with pytest.raises(ValueError, match=rf'num_classes=1, and {TRAIN}\.data'):
        look(detector(coco), bbox_head=Head(1))
    look(detector(coco, return_classes=True), bbox_head=Head(1))
    (coco / 'val/1.png').unlink()
    with pytest.raises(
        ValueError, match=rf'{VAL}.*1 of 3 .*for img_path .*val/1\.png'
    ):
        look(detector(coco), bbox_head=Head(2))
    look(detector(coco, indices=[0, 2]), bbox_head=Head(2))


def test_images_that_were_made_smaller(coco):
    for path in coco.rglob('*.png'):
        save(path, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r'3 of 3 images .*lists \(8, 6\).*boxes end outside'
    ):
        look(detector(coco), bbox_head=Head(2))


def test_annotations_that_the_metric_cannot_use(coco):
    cfg = Config(detector(coco))
    preflight.check_annotations(cfg, (TRAIN, VAL))
    content = json.loads((coco / 'val.json').read_text())
    for annotation in content['annotations']:
        del annotation['iscrowd']
    (coco / 'val.json').write_text(json.dumps(content))
    field = r'val_evaluator\.ann_file: '
    with pytest.raises(ValueError, match=f"{field}.*3 of 3 .*'iscrowd'"):
        preflight.check_annotations(cfg, (TRAIN, VAL))
    cfg.val_evaluator.format_only = True
    preflight.check_annotations(cfg, (TRAIN, VAL))
    cfg.val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=[
        dict(type='CocoMetric', ann_file=str(coco / 'train.json')),
        dict(type='CocoMetric', metric=['segm'],
             ann_file=str(coco / 'train.json')),
    ])  # fmt: skip
    with pytest.raises(
        ValueError, match=r"val_evaluator\.metrics\.1\..*'segmentation'"
    ):
        preflight.check_annotations(cfg, (TRAIN, VAL))


def test_masks_are_asked_for_where_they_are_loaded(coco):
    steps = [dict(type='LoadAnnotations', with_mask=True)]
    cfg = Config(detector(coco, pipeline=steps))
    with pytest.raises(
        ValueError, match=rf"{TRAIN}\.dataset\.ann_file: .*'segmentation'"
    ):
        preflight.check_annotations(cfg, (TRAIN,))


def test_a_string_where_names_are_meant(coco):
    cfg = Config(detector(coco, metainfo=dict(classes='disc')))
    with pytest.raises(
        ValueError, match=rf"{TRAIN}\.dataset\.metainfo\.classes .*\('disc',\)"
    ):
        preflight.check_data(cfg, (TRAIN,))
    (coco / 'names.txt').write_text('disc\nbar')
    cfg = detector(coco, metainfo=dict(classes=str(coco / 'names.txt')))
    preflight.check_data(Config(cfg), (TRAIN,))
    with pytest.raises(ValueError, match=r'dataset\.classes is the string'):
        preflight.check_data(Config(classifier(coco, classes='ab')), (TRAIN,))
