import json

import pytest
from PIL import Image

from mmaib.datasets import trees


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'trees'
    assert trees.build(out)
    return out


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob('*')
        if p.is_file()
    }


def test_splits(built):
    counts = {}
    for split in ('train', 'test'):
        coco = json.loads((built / f'annotations/{split}.json').read_text())
        counts[split] = len(coco['images']), len(coco['annotations'])
        names = {image['file_name'] for image in coco['images']}
        assert names == {p.name for p in (built / split).iterdir()}
    assert counts == {'train': (254, 1997), 'test': (16, 243)}


def test_boxes_lie_in_their_tiles(built):
    coco = json.loads((built / 'annotations/train.json').read_text())
    for annotation in coco['annotations']:
        x, y, width, height = annotation['bbox']
        assert 0 <= x < x + width <= 256
        assert 0 <= y < y + height <= 256


def test_tiles_show_the_photograph(built):
    photo = trees.PHOTOGRAPHS[1]
    image = Image.open(trees.package_data() / f'{photo.stem}.png')
    tile = Image.open(built / 'test' / '0256_0512.png')
    expected = image.convert('RGB').crop((512, 256, 768, 512))
    assert tile.tobytes() == expected.tobytes()


def test_building_again_changes_nothing(built):
    before = files(built)
    assert not trees.build(built)
    assert files(built) == before


def test_damage_is_repaired_and_foreign_files_stay(built):
    before = files(built)
    (built / 'test' / '0000_0000.png').write_bytes(b'cut')
    (built / 'annotations' / 'train.json').unlink()
    (built / 'notes.txt').write_text('mine')
    assert trees.build(built)
    assert (built / 'notes.txt').read_text() == 'mine'
    (built / 'notes.txt').unlink()
    assert files(built) == before


def test_a_tree_counts_where_enough_of_it_shows():
    tile = trees.TILE
    boxes = [
        [10.0, 10.0, 30.0, 30.0],
        [tile - 10.0, 0.0, tile + 10.0, 20.0],  # half of it
        [tile - 5.0, 0.0, tile + 15.0, 20.0],  # a quarter
        [tile + 1.0, 0.0, tile + 9.0, 9.0],
    ]
    assert trees.crop_boxes(boxes, 0, 0) == [
        [10, 10, 20, 20],
        [tile - 10, 0, 10, 20],
    ]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(trees, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='--no-deps deepforest'):
        trees.package_data()


def test_another_photograph_is_refused(monkeypatch):
    photo = trees.PHOTOGRAPHS[1]._replace(sha256='0' * 64)
    with pytest.raises(ValueError, match='sha256'):
        next(trees.tiles(photo))
