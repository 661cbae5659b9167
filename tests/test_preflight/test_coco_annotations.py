import json

import pytest

from mmaib.preflight.coco_annotations import check_coco


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
    assert sentence == '4 of 4 boxes have no area: skipped'
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
    ignored['annotations'][0] = dict(ignore=1)
    assert check_coco(write(ignored), None) == []
    lacking = coco()
    del lacking['annotations'][0]['bbox']
    with pytest.raises(ValueError, match="'id': 0.*does not parse.*bbox"):
        check_coco(write(lacking), None)
