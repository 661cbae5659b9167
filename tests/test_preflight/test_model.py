import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS, MODELS, init_default_scope
from support import segmentation as seg

from mmaib import preflight
from mmaib.layers import AttentiveBottleneck, GaussianEncoder
from mmaib.models import with_aux_losses


class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bottleneck = AttentiveBottleneck(4)

    def loss(self):
        return {}


def test_a_model_that_does_not_collect():
    with pytest.raises(TypeError, match="bottleneck.*base='Base'"):
        preflight.check_collects(Base())
    outer = torch.nn.Module()
    outer.student = with_aux_losses(Base)()
    preflight.check_collects(outer)
    outer.teacher = Base()
    with pytest.raises(TypeError, match=r'teacher\.bottleneck'):
        preflight.check_collects(outer)
    preflight.check_collects(torch.nn.Linear(1, 1))


class OwnEncoder(GaussianEncoder):
    """A user's, from a module of theirs."""


def test_a_layer_of_ones_own_that_would_not_be_heard():
    head = torch.nn.Module()
    head.latent = OwnEncoder(2, 3)
    with pytest.raises(TypeError, match=r'latent \(OwnEncoder\)'):
        preflight.check_collects(head)


def test_a_library_that_is_not_installed(monkeypatch):
    preflight.check_library('mmdet')
    preflight.check_library(None)
    monkeypatch.setattr('mmaib.compat.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='mmdet.*pip install'):
        preflight.check_library('mmdet')


@MODEL_WRAPPERS.register_module(name='WrapperOfTestModel')
class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    'path',
    [
        seg.UPERNET / seg.BEIT,
        seg.DEEPLAB / 'aib_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
    ],
    ids=['upernet', 'deeplab'],
)
def test_batch_norm_on_a_single_image(path):
    cfg = seg.shrink(seg.config(path))
    segmentor = seg.build(cfg)
    with pytest.raises(
        ValueError, match=r'batch_size=1.*model\.decode_head\.norm_cfg'
    ):
        preflight.check_batch(segmentor, 1)
    preflight.check_batch(segmentor, 2)
    with pytest.raises(ValueError, match=r'model\.decode_head\.norm_cfg'):
        preflight.check_batch(Wrapped(segmentor), 1)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        seg.loss(segmentor, seg.inputs(((64, 64),)))
    # what the message advises, at full width
    head = seg.config(path).model.decode_head
    head.norm_cfg.update(type='GN', num_groups=16)
    init_default_scope('mmseg')
    with torch.device('meta'):
        preflight.check_batch(MODELS.build(head), 1)
