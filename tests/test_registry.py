import pytest
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from support import new_python
from torch import nn

from mmaib import compat, registry
from mmaib.compat import Package
from mmaib.models import AIBNeck, AuxLossMixin
from mmaib.models.with_aux_losses import build_with_aux_losses
from mmaib.registry import MODELS, base_class, type_name


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_our_names_resolve_under_any_librarys_scope(scope):
    init_default_scope(scope)
    layer = ROOT_MODELS.build(
        dict(type='mmaib.AnchorQuantizer', num_anchors=3)
    )
    assert type(layer).__name__ == 'AnchorQuantizer'


def test_an_unknown_name_lists_what_is_there():
    with pytest.raises(KeyError, match='AIBNekc is not registered.*AIBNeck'):
        MODELS.get('mmaib.AIBNekc')


class Outer:
    class Inner:
        """A class in a class."""


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('FPN', 'FPN'),
        ('mmaib.AIBNeck', 'mmaib.AIBNeck'),
        ('mmaib.models.aib_neck.AIBNeck', 'mmaib.AIBNeck'),
        (AIBNeck, 'mmaib.AIBNeck'),
        (build_with_aux_losses, 'mmaib.build_with_aux_losses'),
        (Outer.Inner, f'{__name__.partition(".")[0]}.Inner'),
    ],
)
def test_a_type_is_text_a_class_or_its_path(kind, name):
    assert type_name(kind) == name


class Plain(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs

    def loss(self, inputs, data_samples):
        return {}


def test_a_part_by_its_class():
    """In MMEngine's pure-Python style types are no names."""
    init_default_scope('mmengine')
    assert base_class('A', 'base', nn.Linear) is nn.Linear
    with pytest.raises(KeyError, match='A: base=.*build_with_aux_losses'):
        base_class('A', 'base', build_with_aux_losses)
    made = ROOT_MODELS.build(dict(type=build_with_aux_losses, base=Plain))
    assert isinstance(made, Plain)
    assert isinstance(made, AuxLossMixin)


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    absent = Package(
        'no_such_library', {'onedl-x': ('1.0', '2.0')}, 'mmaib.no_such_folder'
    )
    monkeypatch.setattr(compat, 'PACKAGES', (absent,))
    assert compat.installed_libraries() == []
    with pytest.raises(
        KeyError, match=r"no_such_library.*pip install 'onedl-x>=1.0,<2.0'"
    ):
        MODELS.get('mmaib.AIBSomething')


def test_mmdet_missing_altogether():
    """Our layers work, our detectors say what to install."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmdet':
            raise ModuleNotFoundError(name)
import importlib.util as u
real = u.find_spec
u.find_spec = lambda name, *a: None if name == 'mmdet' else real(name, *a)
sys.meta_path.insert(0, Absent())
from mmaib.registry import MODELS
MODELS.build(dict(type='mmaib.AnchorQuantizer', num_anchors=3))
try:
    MODELS.build(dict(type='mmaib.AIBFasterRCNN'))
except KeyError as error:
    print(error)
"""
    out = new_python(code)
    assert 'mmaib.models.detection needs mmdet' in out.stdout, out.stderr
    assert 'pip install' in out.stdout


@pytest.mark.parametrize(
    ('library', 'name', 'other'),
    [
        ('mmdet', 'AIBFasterRCNN', 'mmaib.models.segmentation'),
        ('mmseg', 'AIBUPerHead', 'mmaib.models.detection'),
        ('mmdet', 'AIBNeck', 'mmaib.models.detection'),
        ('mmdet', 'AIBFasterRCNN', 'mmaib.models.classification'),
        ('mmpretrain', 'AIBClsHead', 'mmaib.models.segmentation'),
    ],
)
def test_a_name_imports_no_plugins_but_its_own(library, name, other):
    code = (
        'import sys; from mmaib.registry import MODELS; '
        'from mmengine.registry import init_default_scope; '
        f'init_default_scope({library!r}); '
        f'print(MODELS.get("mmaib.{name}").__name__, {other!r} in sys.modules)'
    )
    out = new_python(code)
    # with what the base libraries' own imports print
    assert out.stdout.splitlines()[-1] == f'{name} False', out.stderr


def test_a_library_that_does_not_import_takes_no_other_along(monkeypatch):
    imported = []

    def import_module(name):
        if name == 'mmaib.models.detection':
            raise ModuleNotFoundError("No module named 'ftfy'")
        imported.append(name)

    monkeypatch.setattr(registry, '_broken', {})
    monkeypatch.setattr(registry, 'import_module', import_module)
    list(registry._plugins())
    assert 'mmaib.models.segmentation' in imported
    with pytest.raises(KeyError, match='detection does not import.*ftfy'):
        MODELS.get('mmaib.AIBSomething')
