"""The page on which predictions are clicked, in a browser."""

import numpy as np
import pytest
from support.browser import needs_browser, visit

from mmaib.explanations import Explanation
from mmaib.explanations.page import page

VISITOR = """
const section = document.querySelector('[data-image]');
const chosen = () => [
  section.querySelector('li [aria-pressed="true"]').textContent.trim(),
  section.querySelector('dl:not([hidden]) dd').textContent,
  [...section.querySelectorAll('dl')].filter((d) => d.offsetHeight).length,
  section.querySelector('.map').getAttribute('src') ===
    section.querySelector('li [aria-pressed="true"]').dataset.map];
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
seen.first = chosen();
const boxes = [...section.querySelectorAll('.picture button')];
boxes[1].click();
seen.clicked = chosen();
const picture = section.querySelector('.picture').getBoundingClientRect();
const box = boxes[1].getBoundingClientRect();
seen.box = [box.left - picture.left, box.top - picture.top, box.width,
  box.height].map((v, i) =>
  Math.round(100 * v / (i % 2 ? picture.height : picture.width)));
section.querySelector('li button').focus();
press('ArrowLeft');
seen.before = chosen();
press('ArrowRight');
press('ArrowDown');
seen.after = chosen();
boxes[1].focus();
press('Enter');
seen.other = document.querySelectorAll('[data-image]')[1]
  .querySelector('li [aria-pressed="true"]').textContent.trim();
"""


def explained(name, score, box, place):
    bits = np.zeros((40, 80), np.float32)
    bits[place] = 1
    return Explanation(name, 0, score, box, bits, 0.5, 0.25, None, 0.1)


@needs_browser
@pytest.mark.parametrize('width', [1400, 500])
def test_boxes_are_clicked(tmp_path, width):
    image = np.full((40, 80, 3), 128, np.uint8)
    cat = explained('cat', 0.9, (8.0, 4.0, 40.0, 20.0), (5, 9))
    dog = explained('<dog>', 0.8, (40.0, 10.0, 72.0, 30.0), (20, 50))
    whole = explained('bird', 0.7, None, (1, 1))
    html = page(
        {'one': (image, [cat, dog, whole]), 'two': (image, [dog])}, 'T'
    )
    seen = visit(html, VISITOR, tmp_path, width)
    assert seen == {
        'errors': [],
        'first': ['cat 0.90', '0.900', 1, True],
        'clicked': ['<dog> 0.80', '0.800', 1, True],
        'box': [50, 25, 40, 50],
        'before': ['cat 0.90', '0.900', 1, True],
        'after': ['bird 0.70', '0.700', 1, True],
        'other': '<dog> 0.80',
        'wider': False,
    }
