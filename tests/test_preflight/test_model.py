import pytest
import torch

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
