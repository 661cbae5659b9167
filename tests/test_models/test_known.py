"""The tables of base libraries' classes, and what a user adds to them."""

import ast
from pathlib import Path

import pytest
from mmdet.models import FCOS, DeformableDETR, MaskFormer, SparseRCNN
from mmseg.models import CascadeEncoderDecoder

import mmaib
from mmaib.models import known


@pytest.mark.parametrize(
    ('cls', 'how'),
    [
        (FCOS, 'anchors'),
        (DeformableDETR, 'set'),
        (MaskFormer, 'set'),  # a SingleStageDetector too
        (SparseRCNN, 'set'),
        (CascadeEncoderDecoder, 'pixels'),
        (dict, None),
    ],
)
def test_a_class_is_known_by_its_closest_base(cls, how):
    assert known.find(known.OUTPUTS, cls) == how


def test_a_users_class_is_known_once_added(monkeypatch):
    class MyDetector(FCOS):
        pass

    assert known.find(known.OUTPUTS, MyDetector) == 'anchors'
    monkeypatch.setitem(known.OUTPUTS, 'MyDetector', 'set')
    assert known.find(known.OUTPUTS, MyDetector) == 'set'
    assert known.find(known.OUTPUTS, FCOS) == 'anchors'


def test_no_other_file_knows_a_class_by_its_name():
    """As a text that is compared or looked up; fields `type` of configs that
    mmaib writes, and messages, name them too."""
    tables = (known.MODELS, known.ROI_HEADS, known.LATENT_HEADS)
    tables += (known.PREDICTORS, known.OUTPUTS)
    names = {name for table in tables for name in table}
    root = Path(mmaib.__file__).parent
    found = {
        f'{path.relative_to(root)}: {node.value}'
        for path in root.rglob('*.py')
        if path.name != 'known.py' and 'testing' not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert not found
