import json

import pytest

from mmaib.preflight.coco_annotations import check_coco, check_evaluated


def coco():
    return dict(
        images=[dict(id=1, file_name='a.jpg', width=40, height=30)],
        categories=[dict(id=7, name='tree'), dict(id=9, name='bush')],
        annotations=[
            dict(
                id=i, image_id=1, category_id=7 + 2 * (i % 2),
                bbox=[2, 3, 10, 10], area=100,
            )
            for i in range(4)
        ],
    )  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / 'train.json'
        path.write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        return str(path)

    return write_file


def test_a_good_file(write):
    assert check_coco(write(coco()), ('tree', 'bush')) == []
    assert check_coco(write(coco()), None) == []


@pytest.mark.parametrize(
    ('field', 'value', 'expected'),
    [
        ('bbox', [50, 3, 10, 10], 'boxes lie outside their image'),
        ('bbox', [-20, 3, 10, 10], 'boxes lie outside their image'),
        ('bbox', [2, 3, 0, 10], 'boxes have no area'),
        ('area', 0, 'boxes have no area'),
        ('category_id', 8, 'a category the file does not list'),
        ('image_id', 2, 'belong to no image'),
        (
            'segmentation',
            dict(size=[40, 30], counts='x'),
            'masks have another size',
        ),
    ],
)
def test_what_mmdet_would_skip_is_counted(write, field, value, expected):
    content = coco()
    for annotation in content['annotations'][:2]:
        annotation[field] = value
    (sentence,) = check_coco(write(content), ('tree', 'bush'))
    assert sentence.startswith('2 of 4')
    assert expected in sentence


def test_categories_and_classes_that_differ(write):
    path = write(coco())
    (skipped,) = check_coco(path, ('tree',))
    assert skipped.startswith("2 of 4 annotations are of 'bush'")
    (absent,) = check_coco(path, ('tree', 'bush', 'shrub'))
    assert "['shrub']" in absent
    (order,) = check_coco(path, ('bush', 'tree'))
    assert "order of the file, ['tree', 'bush']" in order
    with pytest.raises(ValueError, match=r"none of the classes \['cell'\]"):
        check_coco(path, ('cell',))


def test_a_filter_that_leaves_no_image(write):
    flat = coco()
    for annotation in flat['annotations']:
        annotation['area'] = 0
    (sentence,) = check_coco(write(flat), ('tree', 'bush'))
    assert sentence.startswith('4 of 4 boxes have no area: skipped (first: ')
    with pytest.raises(ValueError, match='4 skipped.*empty_gt=True.*none is'):
        check_coco(write(flat), ('tree', 'bush'), filters_empty=True)
    assert check_coco(write(coco()), ('tree', 'bush'), None, True) == []


def test_files_that_are_not_cocos(write):
    whole = json.dumps(coco())
    with pytest.raises(ValueError, match=r"train\.json' is no whole JSON"):
        check_coco(write(whole[: len(whole) // 2]), None)
    without = {k: v for k, v in coco().items() if k != 'annotations'}
    (sentence,) = check_coco(write(without), ())
    assert sentence == 'the file has no annotations'
    with pytest.raises(ValueError, match=r"train\.json' lists no image"):
        check_coco(write({**coco(), 'images': []}), None)
    with pytest.raises(ValueError, match=r"needs .* got \['images'\]"):
        check_coco(write(dict(images=[])), None)
    with pytest.raises(ValueError, match='got list'):
        check_coco(write([]), None)
    ignored = coco()
    ignored['annotations'][0] = dict(id=0, ignore=1)
    assert check_coco(write(ignored), None) == []
    lacking = coco()
    lacking['annotations'][0]['bbox'] = None
    with pytest.raises(ValueError, match="'id': 0.*does not parse.*None"):
        check_coco(write(lacking), None)
    with pytest.raises(ValueError, match='byte order mark.*without BOM'):
        check_coco(write('\ufeff' + whole), None)


def changed(kind, numbers=(0,), **fields):
    """A file some entries of which have other fields; None: lack them."""
    content = coco()
    for number in numbers:
        entry = content[kind][number]
        entry.update(fields)
        for field in [k for k, v in fields.items() if v is None]:
            del entry[field]
    return content


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (changed('annotations', id=1), r'1 ids of annotations .*first: 1\)'),
        (changed('annotations', id=None), "1 of 4 annotations have no 'id'"),
        (
            changed('annotations', (2, 3), area=None),
            "2 of 4 annotations have no 'area' .*first: annotation 2",
        ),
        (
            changed('annotations', (1, 2), image_id='1'),
            '2 of 4 .* image_id that is str, where the file lists int',
        ),
        (
            changed('annotations', (3,), category_id='9'),
            '1 of 4 .* category_id that is str, where .*first: annotation 3',
        ),
        (
            changed('annotations', (1,), bbox=[2, 3, float('nan'), 10]),
            '1 of 4 boxes or areas are not finite .*annotation 1',
        ),
        (
            changed('annotations', (1,), area=float('inf')),
            '1 of 4 boxes or areas are not finite',
        ),
        (changed('images', width=None), "1 of 1 images have no 'width'"),
        (changed('images', height='30'), "height='30', which is no number"),
        (changed('images', file_name=None), "images have no 'file_name'"),
        (changed('categories', name=None), "categories have no 'name'"),
        (changed('categories', id=9), 'ids of categories .*first: 9'),
        (
            changed('categories', (0,), name='bush'),
            r"several categories \(first: 'bush', of the ids \[7, 9\]",
        ),
    ],
)
def test_what_cannot_be_meant(write, content, expected):
    with pytest.raises(ValueError, match=expected):
        check_coco(write(content), ('bush',))


def test_a_parent_of_a_class_that_is_none_may_have_its_name(write):
    content = coco()
    content['categories'] += [dict(id=1, name='rock'), dict(id=2, name='rock')]
    assert check_coco(write(content), ('tree', 'bush')) == []
    with pytest.raises(ValueError, match=r"\['tree'\] more than once"):
        check_coco(write(coco()), ('tree', 'bush', 'tree'))


def test_an_image_listed_twice(write):
    content = coco()
    content['images'] += [{**content['images'][0], 'id': '2'}]
    (sentence,) = check_coco(write(content), ('tree', 'bush'))
    assert "1 file names stand under several ids (first: 'a.jpg')" in sentence
    content['images'][1]['id'] = 1
    with pytest.raises(ValueError, match='1 ids of images stand more than'):
        check_coco(write(content), ('tree', 'bush'))


def test_corners_in_place_of_sizes(write):
    content = coco()
    for annotation in content['annotations']:
        annotation['bbox'] = [12, 10, 33, 28]
    (sentence,) = check_coco(write(content), ('tree', 'bush'))
    assert sentence.startswith('4 of 4 boxes reach beyond their image')
    assert 'by up to 8 pixels (annotation 3); are they x1, y1' in sentence
    # rounded, or a few that are drawn over the edge
    content['annotations'][0]['bbox'] = [0, 0, 42, 32]
    for annotation in content['annotations'][1:]:
        annotation['bbox'] = [30, 20, 9, 9]
    assert check_coco(write(content), ('tree', 'bush')) == []
    content['annotations'][0]['bbox'] = [0, 0, 44, 30]
    (sentence,) = check_coco(write(content), ('tree', 'bush'))
    assert sentence.endswith('by up to 4 pixels (annotation 0)')


def test_masks_that_a_training_loads(write):
    content = changed('annotations', segmentation=[[2, 3, 12, 3, 12, 13]])
    assert check_coco(write(content), ('tree', 'bush')) == []
    with pytest.raises(ValueError, match="3 of 4 .*'segmentation'.*mask=True"):
        check_coco(write(content), ('tree', 'bush'), with_mask=True)
    for annotation in content['annotations'][1:]:
        annotation['segmentation'] = dict(size=[30, 40], counts=[1200])
    assert check_coco(write(content), None, with_mask=True) == []
    content['annotations'][1]['segmentation']['size'] = [40, 30]
    with pytest.raises(ValueError, match='1 of 4 masks have another size'):
        check_coco(write(content), None, with_mask=True)


def test_what_a_metric_needs(write):
    content = coco()
    with pytest.raises(ValueError, match=r"4 of 4 .*'iscrowd'.*annotation 0"):
        check_evaluated(write(content), {'tree', 'bush'}, ['bbox'])
    for annotation in content['annotations'][::2]:
        annotation['iscrowd'] = 0
    check_evaluated(write(content), {'tree'}, ['bbox'])
    with pytest.raises(ValueError, match="2 of 2 .*'segmentation'"):
        check_evaluated(write(content), {'tree'}, ['bbox', 'segm'])
    with pytest.raises(ValueError, match="2 of 4 .*'iscrowd'"):
        check_evaluated(write(content), set(), ['bbox'])
    for annotations in ([], content['annotations'][1::2]):
        few = {**content, 'annotations': annotations}
        with pytest.raises(ValueError, match='no annotation of the classes'):
            check_evaluated(write(few), {'tree'}, ['bbox'])
    without = {k: v for k, v in content.items() if k != 'annotations'}
    with pytest.raises(ValueError, match='no annotation of the classes'):
        check_evaluated(write(without), {'tree'}, ['bbox'])
