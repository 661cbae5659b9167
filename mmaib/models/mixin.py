"""A base model that collects its layers' losses and sets their sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any

from mmengine.dist import all_reduce_dict
from torch import Tensor, nn

from mmaib.checks import one_of
from mmaib.functional.sliding import slides, windows
from mmaib.layers.image_cells import image_cells, note_input_sizes
from mmaib.losses import collect, collecting
from mmaib.sampling.draws import Draws

from .base_checkpoint import BaseCheckpoint, join
from .draw_checks import check_test_draws, check_train_draws
from .equivariance import Equivariance
from .freezing import (
    FROZEN,
    freeze_parameters,
    in_frozen_stages,
    reporters,
    train_trainable,
)
from .wrapping import Mixin

# what base models call their images and their samples
INPUTS = ('inputs', 'batch_inputs')
SAMPLES = ('data_samples', 'batch_data_samples')


class AuxLossMixin(Mixin):
    """Adds auxiliary losses and sampling to a base model: it collects its
    layers' losses and sets how much they sample. Put it before the base
    library's class in the bases.

    If the neck draws more than one map in training (L_a > 1, Eq. 12 of
    [AIB]), the base model gets the samples as often: the draws are folded into
    the batch, draw by draw, and its losses are means over them.

    Args:
        train_draws: ``dict(attention=L_a, latent=L_z)`` in training, 1 and 1
            in [AIB]; ``'mean'`` in place of a number, or of both, is without
            noise.
        test_draws: how to evaluate. ``'mean'``, the mean map and latent,
            deterministic and as fast as the base model; or
            ``dict(attention=L_a, latent=L_z, seed=0)``, Monte-Carlo, what is
            left out at its mean. The noise comes from a generator of its
            own, seeded anew at each call, so the same batches give the same
            results and the global generator is left alone. With
            ``average='probabilities'`` a prediction is the mean of the
            draws' probabilities, not of their logits; with
            ``uncertainty=True`` it gives how far they differ. With
            ``rois='kept'``, its default where maps are drawn with
            uncertainty, a two-stage detector draws for the RoIs alone that
            a pass at the mean keeps.
        frozen: weights and statistics that stay as loaded, to the bit.
            ``'base'``: the base model, so that the layers that report
            losses (maps, gates) learn alone; with an information gate that
            shows where a trained model looks. ``'features'``: all before a
            head's latent, so that latent, std and predictors learn too, the
            second stage of a variational classifier. None: nothing.
        base_checkpoint: where the base model's checkpoint is now, if a
            readout's checkpoint names another path.
        equivariance: fields of
            :class:`~mmaib.models.equivariance.Equivariance`, by which maps
            that are rectangles follow a warp of their image: in
            training a second view passes backbone and attention, and
            ``loss_equivariance`` compares. None is without.
        args, kwargs: of the base model.

    Attributes:
        monitors: whether a step reports monitors beside the losses. A loop
            of your own sets it; under ``mmaib train`` the steps that are
            logged do.
        base_checkpoint: what the frozen base model was loaded from, as far
            as it is known; checkpoints then hold what was learned alone.
        draw_parts: what a model needs for its draws to be averaged,
            ``{'attention': {name: type}, 'latent': {name: type}}``; None if
            it cannot.

    Raises:
        ValueError: if a field does not fit, or asks for draws from parts
            that have none to give.
        KeyError: at the first step, if the base model already has a loss of a
            reported name.
    """

    draw_parts: dict[str, dict[str, type]] | None = None
    monitors: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        made: Any = cls
        if hasattr(made, 'forward'):  # not yet with a mixin of mmaib's
            made.forward = _with_contexts(made.forward)

    def __init__(
        self,
        *args: Any,
        train_draws: dict | str | None = None,
        test_draws: dict | str = 'mean',
        frozen: str | None = None,
        base_checkpoint: str | None = None,
        equivariance: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        preprocessor: Any = getattr(self, 'data_preprocessor', None)
        if preprocessor is not None:
            preprocessor.register_forward_hook(note_input_sizes)
        self._base_path = base_checkpoint
        self.base_checkpoint: BaseCheckpoint | None = None
        if train_draws is None:
            train_draws = {'attention': 1, 'latent': 1}
        self.train_draws = Draws.from_config('train_draws', train_draws)
        self.test_draws = test_draws
        check_train_draws(self, self.train_draws)
        for layer in in_frozen_stages(self):
            layer.requires_grad_(True)
        self.frozen = one_of('frozen', frozen, FROZEN)
        if self.frozen:
            freeze_parameters(self, self.frozen)
        self.equivariance = Equivariance.from_config(equivariance, self)

    @property
    def test_draws(self) -> Draws:
        return self._test_draws

    @test_draws.setter
    def test_draws(self, value: dict | str | Draws) -> None:
        draws = Draws.from_config('test_draws', value)
        check_test_draws(self, value, draws)
        self._test_draws = draws

    def check_probabilities(self) -> None:
        """Refuse a model whose logits are not those of a softmax or a
        sigmoid, whose probabilities could be averaged over samples."""
        raise ValueError(
            "test_draws with uncertainty or average='probabilities': "
            f'{type(self).__name__} averages the logits of its draws alone; '
            'mmaib.AIBFasterRCNN, mmaib.AIBEncoderDecoder and '
            'mmaib.AIBImageClassifier know both'
        )

    def train(self, mode: bool = True) -> Any:
        trainable = [
            parameter
            for layer in reporters(self)
            for parameter in layer.parameters()
            if parameter.requires_grad
        ]
        super().train(mode)
        if mode:
            for layer in in_frozen_stages(self):
                layer.train()
        if mode and self.frozen:
            train_trainable(self, self.frozen)
        # SoftTeacher's would report without gradient
        teacher = getattr(self, 'teacher', None)
        if isinstance(teacher, nn.Module):
            teacher.eval()
        # a backbone freezes its stages again at each call
        for parameter in trainable:
            parameter.requires_grad_(True)
        return self

    def _image_cells(
        self, training: bool, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> AbstractContextManager:
        """Where the images lie in their batch, for the layers inside."""
        inputs = args[0] if args else _given(kwargs, INPUTS)
        samples = args[1] if args[1:] else _given(kwargs, SAMPLES)
        slid = None
        if slides(self) and not training and isinstance(inputs, Tensor):
            cfg: Any = self.test_cfg
            size = (inputs.size(2), inputs.size(3))
            slid = windows(size, cfg['crop_size'], cfg['stride'])
        return image_cells(inputs, samples, training, slid)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        named = join(state_dict, self._base_path, prefix)
        self.base_checkpoint = named or self.base_checkpoint
        super()._load_from_state_dict(state_dict, prefix, *args)

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        draws = self.train_draws if self.training else Draws()
        cells = self._image_cells(True, args, kwargs)
        with draws.open(), collect(self.monitors) as aux, cells:
            losses = self._drawn_loss(*args, **kwargs)
            if self.equivariance and self.training:
                images = args[0] if args else _given(kwargs, INPUTS)
                self.equivariance.report(self, images, aux.rectangles)
        extra = aux.mean()
        if extra and 'loss' in losses:
            # mmpretrain's; MMEngine logs the sum under that name
            losses['loss_cls'] = losses.pop('loss')
        monitors = {k: v for k, v in extra.items() if 'loss' not in k}
        if monitors:
            all_reduce_dict(monitors, op='mean')
            extra.update(monitors)
        if clash := sorted(extra.keys() & losses.keys()):
            raise KeyError(
                f'{type(self).__name__} and mmaib both report {clash}; '
                'give the layer another `loss_name`'
            )
        losses.update(extra)
        return losses

    def _drawn_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The base model's loss, of its samples as often as the neck copies
        them."""
        copies = getattr(getattr(self, 'neck', None), 'copies', 1)
        if copies > 1:
            args = (
                *args[:1],
                *(list(samples) * copies for samples in args[1:2]),
                *args[2:],
            )
            for name in kwargs.keys() & {*SAMPLES}:
                kwargs[name] = list(kwargs[name]) * copies
        return super().loss(*args, **kwargs)


def _with_contexts(forward: Callable) -> Callable:
    """A base model's ``forward``, whose arguments keep their names for
    exporters. In training a model is called for its outputs too (FLOP
    counters, tracers, summaries): what is reported there is dropped."""

    @wraps(forward)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        mode = args[2] if args[2:] else kwargs.get('mode')
        with ExitStack() as stack:
            cells = self._image_cells(mode == 'loss', args, kwargs)
            stack.enter_context(cells)
            if self.training and not collecting(False):
                stack.enter_context(collect())  # loss() opens its own
            return forward(self, *args, **kwargs)

    run.__doc__ = None  # else API pages would print the base library's
    return run


def _given(kwargs: dict[str, Any], names: Sequence[str]) -> Any:
    """What a base model is given by one of these names, or None."""
    return next((kwargs[name] for name in names if name in kwargs), None)
