import numpy as np
import pytest

from mmaib.datasets import ClutteredDigits, cluttered_digits
from mmaib.datasets.cluttered_digits import SIDE


def samples(**fields):
    data = ClutteredDigits(**fields)
    return [data.get_data_info(i) for i in range(len(data))]


def test_the_same_images_each_time_and_others_in_validation():
    first, second = (samples(num_images=6) for _ in range(2))
    other = samples(split='val', num_images=6)
    for a, b, c in zip(first, second, other, strict=True):
        assert np.array_equal(a['img'], b['img'])
        assert not np.array_equal(a['img'], c['img'])
        assert a['gt_label'] == b['gt_label']
        assert a['img'].shape == (SIDE, SIDE, 3)
        assert a['img'].dtype == np.uint8


def test_the_box_holds_the_digit_and_no_less(monkeypatch):
    """On a black photograph, without the pieces of others."""
    monkeypatch.setattr(cluttered_digits, 'PIECES', 0)
    ground = np.zeros((100, 100, 3), np.uint8)
    rng = np.random.default_rng(0)
    labels = np.array([3, 7])
    ink = np.zeros((2, 8, 8))
    ink[0, 1:7, 3:5], ink[1, 2:4, :] = 1, 1
    sides, seen = [], set()
    for _ in range(40):
        made = cluttered_digits.compose(ground, ink, labels, rng)
        lit = made.image.max(-1) >= 0.5 * made.image.max()
        rows, columns = np.nonzero(lit)
        found = [columns.min(), rows.min(), columns.max(), rows.max()]
        expected = made.box - [0, 0, 1, 1]
        assert np.abs(expected - found).max() <= 1
        sides.append(made.box[2:] - made.box[:2])
        seen.add(made.label)
    assert seen == {3, 7}
    assert np.max(sides) > 1.5 * np.min(np.max(sides, 1))


@pytest.mark.parametrize(
    ('field', 'value'), [('split', 'test'), ('num_images', 0)]
)
def test_bad_fields(field, value):
    with pytest.raises(ValueError, match=field):
        ClutteredDigits(**{field: value})
