import io

import numpy as np
import pytest
from PIL import Image

from mmaib.datasets import digits


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'digits'
    assert digits.build(out)
    return out


def test_splits(built):
    for split in digits.SPLITS:
        for kind in ('img_dir', 'ann_dir'):
            found = list((built / kind / split.name).iterdir())
            assert len(found) == split.num_images


def test_building_again_changes_nothing(built):
    assert not digits.build(built)


def test_building_elsewhere_gives_the_same(built, tmp_path):
    assert digits.build(tmp_path)
    names = [p.relative_to(built) for p in built.rglob('*.*')]
    assert len(names) == 2 * 480 + 1
    for name in names:
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_figure_and_ground(built):
    for split in digits.SPLITS:
        counts = np.zeros(256, dtype=int)
        for path in (built / 'ann_dir' / split.name).iterdir():
            counts += np.bincount(
                np.asarray(Image.open(path)).ravel(), minlength=256
            )
        assert not counts[2:].any()
        assert 0.6 < counts[0] / counts.sum() < 0.95


def test_the_mask_is_what_was_painted():
    photograph = np.full((200, 200, 3), 7, dtype=np.uint8)
    ink = np.zeros((1, 8, 8))
    ink[0, 2:6, 2:6] = 1
    rng = np.random.default_rng(3)
    image, mask = digits.compose(photograph, ink, rng)
    assert set(np.unique(mask)) == {0, 1}
    # Half of the ink is the border between the mask and the photograph.
    untouched = (image == 7).all(-1)
    assert not (untouched & (mask == 1)).any()
    assert untouched[mask == 0].mean() > 0.8


def test_splits_share_neither_digits_nor_pixels():
    train, val = digits.SPLITS
    assert train.columns.stop <= val.columns.start
    assert train.digits.stop <= val.digits.start


def test_images_are_decoded_as_written(built):
    path = built / 'ann_dir' / 'val' / '0000.png'
    mask = np.asarray(Image.open(path))
    again = digits.encode(mask, 'png')
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(again))), mask)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(digits, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='pip install scikit-learn'):
        digits.sources()
