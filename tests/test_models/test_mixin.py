import copy
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmaib.layers import AnchorQuantizer
from mmaib.losses import (
    collect,
    collecting,
    report_loss,
    report_scalar,
    require_collector,
)
from mmaib.models import AIBNeck, AuxLossMixin, with_aux_losses


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def loss(self, x):
        report_loss('loss_kl', self.weight * x)
        report_loss('loss_kl', self.weight * 3 * x)
        report_scalar('kl_nats', self.weight * x)
        return {'loss_cls': self.weight * 2}


def test_reports_reach_the_base_models_loss_dict_as_means():
    losses = with_aux_losses(Base)().loss(torch.tensor(5.0))
    assert {k: float(v) for k, v in losses.items()} == {
        'loss_cls': 2,
        'loss_kl': 10,
        'kl_nats': 5,
    }
    assert losses['loss_kl'].requires_grad
    assert not losses['kl_nats'].requires_grad


def test_reports_are_weighed():
    with collect() as aux:
        report_loss('loss_info', torch.tensor(1.0), weight=3)
        report_loss('loss_info', torch.tensor(5.0), weight=1)
        report_scalar('open', torch.tensor(5.0), weight=1)
    assert {k: float(v) for k, v in aux.mean().items()} == {
        'loss_info': 2,
        'open': 5,
    }


def test_outside_a_collector_a_report_is_lost_and_nothing_is_kept():
    assert not collecting(training=True)
    assert set(Base().loss(torch.tensor(1.0))) == {'loss_cls'}
    with collect() as aux:
        pass
    assert aux.mean() == {}


class Attends(nn.Module):
    """A base model as MMEngine calls it, with a neck that must be heard."""

    def __init__(self):
        super().__init__()
        self.neck = AIBNeck(dict(beta=0.5), in_channels=4)

    def loss(self, inputs):
        return {'loss_cls': self.neck([inputs])[0].mean()}

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.loss(inputs) if mode == 'loss' else self.neck([inputs])


def test_a_call_for_outputs_gets_them_and_drops_reports():
    model = with_aux_losses(Attends)().train()
    x = torch.rand(2, 4, 6, 6)
    (features,) = model(x)
    assert features.shape == x.shape
    assert {'loss_cls', 'loss_kl_map'} < model(x, mode='loss').keys()
    # a part that is run alone is still refused, a caller's collect() counts
    with pytest.raises(RuntimeError, match='AIBNeck is trained inside'):
        model.neck([x])
    with collect() as aux:
        model(x)
    assert 'loss_kl_map' in aux.mean()
    # exporters name inputs by it
    assert [*inspect.signature(model.forward).parameters] == [
        'inputs',
        'data_samples',
        'mode',
    ]


def test_a_training_model_is_counted_and_traced():
    model = with_aux_losses(Attends)().train()
    x = torch.rand(2, 4, 6, 6)
    convolutions = 2 * 2 * 36 * 4 * (9 + 1)  # of the mean and the std
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() >= convolutions
    found = get_model_complexity_info(
        model, inputs=(x,), show_table=False, show_arch=False
    )
    assert found['flops'] >= convolutions // 2
    traced = torch.jit.trace(model, (x,), check_trace=False)
    assert torch.allclose(traced(x)[0], model(x)[0], atol=1e-6)


def test_consecutive_steps_do_not_share_reports():
    model = with_aux_losses(Base)()
    first = model.loss(torch.tensor(1.0))
    sum(v for k, v in first.items() if 'loss' in k).backward()
    second = copy.deepcopy(model).loss(torch.tensor(2.0))
    assert float(second['loss_kl']) == 4
    sum(v for k, v in second.items() if 'loss' in k).backward()


def test_a_crash_inside_leaves_no_collector_open():
    class Crashes(Base):
        def loss(self, x):
            super().loss(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_aux_losses(Crashes)().loss(torch.tensor(1.0))
    assert not collecting(training=True)


def test_the_innermost_collector_hears():
    with collect() as outer, collect() as inner:
        report_loss('loss_a', torch.tensor(1.0))
    assert set(inner.mean()) == {'loss_a'}
    assert outer.mean() == {}


def test_names_that_mmengine_would_treat_wrongly():
    with pytest.raises(ValueError, match="'kl'"):
        report_loss('kl', torch.zeros(()))
    with pytest.raises(ValueError, match="'loss_kl'"):
        report_scalar('loss_kl', torch.zeros(()))


def test_a_name_the_base_model_uses_already():
    class Clash(Base):
        def loss(self, x):
            return {**super().loss(x), 'loss_kl': x}

    with pytest.raises(KeyError, match='loss_kl'):
        with_aux_losses(Clash)().loss(torch.tensor(1.0))


def test_with_aux_losses_is_the_same_class_each_time_and_wraps_once():
    wrapped = with_aux_losses(Base)
    assert with_aux_losses(Base) is wrapped
    assert with_aux_losses(wrapped) is wrapped
    assert issubclass(wrapped, AuxLossMixin)
    assert wrapped.__name__ == 'WithAuxLossesBase'


def test_a_wrapped_model_is_copied_and_pickled():
    model = with_aux_losses(Base)()
    model.weight.data.fill_(3.0)
    model.test_draws = 'mean'
    for again in (
        *(pickle.loads(pickle.dumps(model, p)) for p in (0, 2, 5)),
        copy.deepcopy(model),
    ):
        assert type(again) is type(model)
        assert again.weight is not model.weight
        assert again.weight.item() == 3
        assert again.train_draws == model.train_draws
        assert float(again.loss(torch.tensor(5.0))['loss_kl']) == 30


class Refined(with_aux_losses(Base)):
    pass


def test_a_subclass_of_a_wrapped_model_is_pickled_as_itself():
    assert type(pickle.loads(pickle.dumps(Refined()))) is Refined


def test_a_wrapped_model_is_read_in_another_process(tmp_path):
    """Which has not wrapped the class."""
    path = tmp_path / 'model.pkl'
    path.write_bytes(pickle.dumps(with_aux_losses(Base)()))
    program = (
        'import pathlib, pickle, sys;'
        'model = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());'
        'print(type(model).__name__, model.weight.item())'
    )
    here = Path(__file__).parent
    out = subprocess.run(
        [sys.executable, '-c', program, path],
        env={**os.environ, 'PYTHONPATH': f'{here.parent}:{here}'},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.split() == ['WithAuxLossesBase', '1.0']


def test_draws_that_a_model_cannot_average_are_told():
    match = 'WithAuxLossesBase cannot average draws.*AIBFasterRCNN'
    with pytest.raises(ValueError, match=match):
        with_aux_losses(Base)(test_draws=dict(attention=4))
    with pytest.raises(ValueError, match=r"test_draws must be 'mean'.*got 4"):
        with_aux_losses(Base)(test_draws=4)


def test_with_aux_losses_refuses_what_has_no_loss():
    with pytest.raises(TypeError, match='loss'):
        with_aux_losses(nn.Linear)


def test_training_without_a_collector_is_refused():
    with pytest.raises(RuntimeError, match='mmaib.WithAuxLosses'):
        require_collector('AIBNeck')
    with collect():
        require_collector('AIBNeck')


def test_a_teacher_within_a_students_step_reports_nothing():
    """Semi-supervised detectors run a teacher inside their loss()."""
    layer = AnchorQuantizer(3)
    scores = torch.rand(4)
    with collect() as aux:
        layer(scores)
        student = aux.mean()
        layer.eval()
        with torch.no_grad():
            layer(1 - scores)
    assert aux.mean() == student
    # but a loss that is evaluated without gradient is heard
    with torch.no_grad(), collect() as aux:
        layer(scores)
    assert aux.mean().keys() == student.keys()
