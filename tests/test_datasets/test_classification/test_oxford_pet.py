from collections import Counter

import pytest
from dataset_files import build, refused, write_pets
from mmpretrain.datasets import OxfordIIITPet

COUNTS = (10, 20, 5)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / 'pets'
    write_pets(root, COUNTS)
    return root


def parts(root, **fields):
    return [
        {sample['img_path']: sample['gt_label'] for sample in part}
        for part in (
            build('OxfordPetSplits', root, split=split, **fields)
            for split in ('train', 'val')
        )
    ]


@pytest.mark.parametrize('share', [0.6, 0.7, 0.8])
def test_each_breed_is_divided_by_the_same_share(pets, share):
    train, val = parts(pets, share=share)
    assert not train.keys() & val.keys()
    assert len(train) + len(val) == sum(COUNTS)
    counts = Counter(train.values())
    for label, count in enumerate(COUNTS):
        assert counts[label] == round(share * count)
    for path, label in {**train, **val}.items():
        assert f'/images/Breed_{label + 1}_' in path


def test_a_seed_is_a_division(pets):
    assert parts(pets, seed=1) == parts(pets, seed=1)
    assert parts(pets, seed=1) != parts(pets, seed=2)


def test_classes_are_the_base_models_and_an_image_passes_the_pipeline(pets):
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(300, 300)),
        dict(type='PackInputs'),
    ]
    data = build('OxfordPetSplits', pets, pipeline=steps)
    assert data.metainfo['classes'] == OxfordIIITPet.METAINFO['classes']
    assert data[0]['inputs'].shape == (3, 300, 300)


def test_files_that_are_not_there(pets):
    gone = pets / 'images' / 'Breed_2_3.jpg'
    in_train = str(gone) in parts(pets)[0]
    with_it, without = ('train', 'val') if in_train else ('val', 'train')
    gone.unlink()
    build('OxfordPetSplits', pets, split=without)
    match = r"1 of \d+ images are not there: .*Breed_2_3.jpg' does not exist"
    missing = FileNotFoundError
    refused('OxfordPetSplits', pets, match, missing, split=with_it)
    (pets / 'annotations' / 'list.txt').unlink()
    refused('OxfordPetSplits', pets, "list.txt' does not exist", missing)


@pytest.mark.parametrize(
    ('line', 'match'),
    [
        ('Abyssinian_1 38 1 1', "'Abyssinian_1 38 1 1' in line 4; .* 1 to 37"),
        ('Abyssinian_1 1 1', 'in line 4; it must be an image, a class'),
        ('# nothing', 'names no image; it must name 7,349'),
    ],
)
def test_a_list_with_other_contents(pets, line, match):
    path = pets / 'annotations' / 'list.txt'
    head = path.read_text().splitlines()[:3]
    path.write_text('\n'.join([*head, line]))
    refused('OxfordPetSplits', pets, match)


@pytest.mark.parametrize(
    ('field', 'value'),
    [('split', 'test'), ('share', 1.0), ('share', 0.0), ('seed', -1)],
)
def test_bad_fields(pets, field, value):
    with pytest.raises(ValueError, match=field):
        build('OxfordPetSplits', pets, **{field: value})
