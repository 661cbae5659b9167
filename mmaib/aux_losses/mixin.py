"""A host's model that hears its layers, and says how much they draw."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from mmengine.dist import all_reduce_dict
from mmengine.logging import MMLogger
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib import deprecated
from mmaib.any_draws import draws_mixin
from mmaib.checks import one_of
from mmaib.draws import Draws
from mmaib.equivariance import Equivariance, untouched_statistics
from mmaib.functional import warp_images
from mmaib.image_cells import image_cells, note_input_sizes
from mmaib.mixed import mixed
from mmaib.sliding import slides, windows

from .draw_checks import check_test_draws, check_train_draws
from .reports import Reporter, collect, report_loss

# how low, and how long, before a map is called flat
FLAT_CONTRAST, FLAT_STEPS = 0.01, 100
# what base models call their images and their samples
INPUTS = ('inputs', 'batch_inputs')
SAMPLES = ('data_samples', 'batch_data_samples')


class AuxLossMixin:
    """What makes a host's model ours: it collects its layers' losses and
    says how much they draw. Put it before the host in the bases.

    If the neck draws more than one map in training (L_a > 1, Eq. 12 of
    [AIB]), the host gets the samples as often: the draws are folded into the
    batch, draw by draw, and its losses are means over them.

    Args:
        train_draws: ``dict(attention=L_a, latent=L_z)`` in training, 1 and 1
            in [AIB]; ``'mean'`` in place of a number, or of both, is without
            noise.
        test_draws: how to evaluate. ``'mean'``, the mean map and latent,
            deterministic and as fast as the host; or
            ``dict(attention=L_a, latent=L_z, seed=0)``, Monte-Carlo, what is
            left out at its mean. The noise comes from a generator of its
            own, seeded anew at each call, so the same batches give the same
            results and the global generator is left alone. With
            ``average='probabilities'`` a prediction is the mean of the
            draws' probabilities, not of their logits; with
            ``uncertainty=True`` it tells how far they differ.
        freeze_host: what of the host stays as it was loaded, weights and
            statistics, to the bit. True: all of it, so that the layers that
            report (maps, gates) learn alone; with an information gate that
            reads out where a trained model looks. ``'features'``: all in
            front of a head's latent, so that latent, std and predictors
            learn too, the second stage of a variational classifier.
        equivariance: fields of :class:`mmaib.equivariance.Equivariance`, by
            which maps that are rectangles follow a warp of their image: in
            training a second view passes backbone and attention, and
            ``loss_equivariance`` compares. None is without.
        args, kwargs: of the host's model.

    Attributes:
        draw_parts: what a model needs for its draws to be averaged,
            ``{'attention': {name: type}, 'latent': {name: type}}``; None if
            it cannot.

    Raises:
        ValueError: if a field does not fit, or asks for draws from parts
            that have none to give.
        KeyError: at the first step, if the host already has a loss of a
            reported name.
    """

    draw_parts: dict[str, dict[str, type]] | None = None

    def __init__(
        self,
        *args: Any,
        train_draws: dict | str | None = None,
        test_draws: dict | str = 'mean',
        freeze_host: bool | str = False,
        equivariance: dict | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        kwargs, old = deprecated.train_draws(owner, kwargs)
        super().__init__(*args, **kwargs)
        preprocessor: Any = getattr(self, 'data_preprocessor', None)
        if preprocessor is not None:
            preprocessor.register_forward_hook(note_input_sizes)
        if train_draws is None:
            train_draws = {'attention': 1, 'latent': 1, **old}
        self.train_draws = Draws.from_config('train_draws', train_draws)
        self.test_draws = test_draws
        check_train_draws(self, self.train_draws)
        self.freeze_host = one_of(
            'freeze_host', freeze_host, (True, False, 'features')
        )
        if freeze_host:
            self._freeze_host()
        self.equivariance = Equivariance.from_config(equivariance, self)
        # of the last steps; None once the warning was given
        self._contrasts: list[Tensor] | None = []

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
        sigmoid, of which probabilities over draws could be told."""
        raise ValueError(
            "test_draws with uncertainty or average='probabilities': "
            f'{type(self).__name__} averages the logits of its draws alone; '
            'mmaib.AIBFasterRCNN, mmaib.AIBEncoderDecoder and '
            'mmaib.AIBImageClassifier know both'
        )

    def learning_layers(self) -> list[Any]:
        """The layers that learn behind a frozen host."""
        modules = [*self.modules()]  # type: ignore[attr-defined]
        found = [m for m in modules if isinstance(m, Reporter)]
        if self.freeze_host == 'features':
            found += [
                head.get_submodule(name)
                for head in modules
                for name in getattr(head, 'behind_features', ())
            ]
        return found

    def _freeze_host(self) -> None:
        learning = self.learning_layers()
        heads = any(hasattr(m, 'behind_features') for m in self.modules())  # type: ignore[attr-defined]
        if self.freeze_host == 'features' and not heads:
            raise ValueError(
                "freeze_host='features' lets a latent and what predicts from "
                'it learn, and the model has no head with a latent: '
                'mmaib.AIBShared2FCBBoxHead, mmaib.AIBUPerHead or '
                'mmaib.AIBClsHead'
            )
        if not learning:
            raise ValueError(
                'freeze_host=True leaves nothing to learn: the model has no '
                'layer that reports, such as the bottleneck of an '
                'mmaib.AIBNeck'
            )
        self.requires_grad_(False)  # type: ignore[attr-defined]
        for layer in learning:
            layer.requires_grad_(True)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)  # type: ignore[misc]
        if mode and self.freeze_host:
            for child in self.children():  # type: ignore[attr-defined]
                child.eval()
            for layer in self.learning_layers():
                layer.train()
                if isinstance(layer, Reporter):
                    continue
                for module in layer.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()  # statistics are the host's
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._image_cells(kwargs.get('mode') == 'loss', args, kwargs):
            return super().forward(*args, **kwargs)  # type: ignore[misc]

    def _image_cells(
        self, training: bool, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> AbstractContextManager:
        """Where the images lie in their batch, for the layers inside."""
        inputs = args[0] if args else _given(kwargs, INPUTS)
        samples = args[1] if args[1:] else _given(kwargs, SAMPLES)
        slid = None
        if slides(self) and not training and isinstance(inputs, Tensor):
            cfg: Any = self.test_cfg  # type: ignore[attr-defined]
            size = (inputs.size(2), inputs.size(3))
            slid = windows(size, cfg['crop_size'], cfg['stride'])
        return image_cells(inputs, samples, training, slid)

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        draws = self.train_draws if self.training else Draws()  # type: ignore[attr-defined]
        cells = self._image_cells(True, args, kwargs)
        with draws.open(), collect() as aux, cells:
            losses = self._drawn_loss(*args, **kwargs)
            if self.equivariance and self.training:  # type: ignore[attr-defined]
                images = args[0] if args else _given(kwargs, INPUTS)
                self._report_equivariance(images, aux.rectangles)
        extra = aux.mean()
        if extra and 'loss' in losses:
            # mmpretrain's; MMEngine logs the sum under that name
            losses['loss_cls'] = losses.pop('loss')
        monitors = {k: v for k, v in extra.items() if 'loss' not in k}
        if monitors:
            all_reduce_dict(monitors, op='mean')
            extra.update(monitors)
            self._warn_of_a_flat_map(monitors.get('attention_contrast'))
        if clash := sorted(extra.keys() & losses.keys()):
            raise KeyError(
                f'{type(self).__name__} and mmaib both report {clash}; '
                'give the layer another `loss_name`'
            )
        losses.update(extra)
        return losses

    def _report_equivariance(
        self, images: Tensor, first: list[tuple[Tensor, tuple[int, int]]]
    ) -> None:
        """Compare the rectangles of a first view with those of a second,
        which leaves no other trace."""
        rule: Any = self.equivariance
        warp = rule.warps(images)
        model: Any = self
        with collect() as seen, untouched_statistics(model):
            model.neck.look(model.backbone(warp_images(images, warp)))
        for (params, size), (moved, _) in zip(
            first, seen.rectangles, strict=True
        ):
            report_loss(
                'loss_equivariance', rule.loss(params, moved, warp, size)
            )

    def _warn_of_a_flat_map(self, contrast: Tensor | None) -> None:
        """Say once that the maps had no contrast for a hundred steps."""
        if contrast is None or self._contrasts is None:
            return
        self._contrasts.append(contrast)
        if len(self._contrasts) < FLAT_STEPS:
            return
        # a GPU is waited for once in a hundred steps
        highest = float(torch.stack(self._contrasts).max())
        self._contrasts.clear()
        if highest < FLAT_CONTRAST:
            self._contrasts = None
            names = [
                name
                for name, module in self.named_modules()  # type: ignore[attr-defined]
                if isinstance(module, Reporter) and hasattr(module, 'attend')
            ]
            MMLogger.get_current_instance().warning(
                f'{", ".join(names)}: the attention map has been flat for '
                f'{FLAT_STEPS} steps (attention_contrast at most '
                f'{highest:.1e}), so it attends to nothing. '
                'attention=dict(logit_norm=True) cannot saturate; see '
                'attention_saturated in the log'
            )

    def _drawn_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The host's loss, of its samples as often as the neck copies
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
        return super().loss(*args, **kwargs)  # type: ignore[misc]


def _given(kwargs: dict[str, Any], names: Sequence[str]) -> Any:
    """What a base model is given by one of these names, or None."""
    return next((kwargs[name] for name in names if name in kwargs), None)


@cache
def with_aux_losses(cls: type) -> type:
    """The class ``cls``, collecting the losses of the layers inside it.

    Args:
        cls: a host's model class, for instance mmdet's ``RetinaNet``.

    Raises:
        TypeError: if ``cls`` has no ``loss`` method to wrap.
    """
    if not (isinstance(cls, type) and callable(getattr(cls, 'loss', None))):
        raise TypeError(
            f'with_aux_losses needs a model class with a loss(), got {cls!r}'
        )
    if issubclass(cls, AuxLossMixin):
        return cls

    averaging = draws_mixin(cls)
    return mixed(
        f'WithAuxLosses{cls.__name__}',
        (AuxLossMixin, *([averaging] if averaging else []), cls),
        with_aux_losses,
    )
