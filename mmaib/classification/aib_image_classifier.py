from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor

from mmaib.aux_losses import AuxLossMixin
from mmaib.checks import evaluation_draws
from mmaib.layers import AIBNeck
from mmaib.registry import MODELS

from .aib_cls_head import AIBClsHead


@MODELS.register_module()
class AIBImageClassifier(AuxLossMixin, ImageClassifier):
    """Classifier with IB attention (Section 4.1.1 of [AIB]).

    ::

        image -> features -> AIBNeck [ map -> encoder ] -> AIBClsHead -> class
                                        |                      |
                              loss_vq, loss_commit          loss_kl

    Features are the ``backbone``, the encoder is the neck that the
    ``AIBNeck`` wraps, ``where='before'``. Without an ``AIBNeck`` it is the
    deep variational bottleneck (DVIB), without an ``AIBClsHead`` attention
    alone.

    Args:
        test_draws: how to evaluate. ``'mean'``, the mean map and latent,
            deterministic and as fast as the host; or
            ``dict(attention=L_a, latent=L_z, seed=0)``, Monte-Carlo: the
            features are made once, all draws pass encoder and head as one
            batch, and logits are averaged. Either may be left out, which is
            its mean. The noise comes from a generator of its own, seeded
            anew in each batch, so an evaluation with the same batches
            repeats exactly, and the global generator is left alone.
        args, kwargs: of mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: if ``test_draws`` does not fit, or asks for draws from a
            part that has none to give.
    """

    def __init__(
        self, *args: Any, test_draws: str | dict = 'mean', **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        channels = getattr(self.neck, 'out_channels', None)
        if (
            isinstance(self.head, AIBClsHead)
            and isinstance(channels, int)
            and channels != self.head.in_channels
        ):
            raise ValueError(
                f'the neck gives {channels} channels, head.in_channels is '
                f'{self.head.in_channels}'
            )
        self._check_noise()
        self.test_draws = evaluation_draws(test_draws, 'mean', 'mean')
        for name, kind, part in (
            ('attention', AIBNeck, self.neck),
            ('latent', AIBClsHead, self.head),
        ):
            drawn = self.test_draws and self.test_draws[name] is not None
            if drawn and not isinstance(part, kind):
                field = 'neck' if kind is AIBNeck else 'head'
                raise ValueError(
                    f'test_draws.{name} needs an mmaib.{kind.__name__} as '
                    f'{field}, got {type(part).__name__}: leave {name} out'
                )
        if self.test_draws and not isinstance(self.head, ClsHead):
            raise ValueError(
                'test_draws averages the logits of a head derived from '
                f"mmpretrain's ClsHead, got {type(self.head).__name__}"
            )

    def _check_noise(self) -> None:
        """Refuse a second source of noise behind that on the features."""
        bottleneck = getattr(self.neck, 'bottleneck', None)
        if getattr(bottleneck, 'noise', None) is None:
            return
        encoder = getattr(self.head, 'encoder', None)
        if encoder is None:
            return
        if getattr(encoder, 'noise_std', None) != 0 or (
            encoder.train_draws != 1
        ):
            raise ValueError(
                'neck.bottleneck.noise makes the latent stochastic: it needs '
                "head.encoder=dict(type='mmaib.AdditiveNoiseEncoder', "
                'noise_std=0.0) and head.train_draws=1 (its own field is '
                f'noise.train_draws), got {type(encoder).__name__} with '
                f'noise_std={getattr(encoder, "noise_std", None)} and '
                f'train_draws={encoder.train_draws}'
            )

    def predict(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        **kwargs: Any,
    ) -> list:
        """Predictions of logits averaged over draws, if there are."""
        if self.test_draws is None:
            return super().predict(inputs, data_samples, **kwargs)
        generator = torch.Generator(inputs.device)
        generator.manual_seed(self.test_draws['seed'])
        logits = self.draw_logits(inputs, generator=generator).mean(0)
        return self.head._get_predictions(logits, data_samples, **kwargs)

    def draw_logits(
        self, inputs: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Logits of each draw that ``test_draws`` asks for.

        Args:
            inputs: images ``(N, 3, H, W)``, normalised.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L_z * L_a, N, C)``.
        """
        draws = self.test_draws or dict(attention=None, latent=None)
        x, latent = self.backbone(inputs), draws['latent']
        if isinstance(self.neck, AIBNeck):
            # where the noise of the latent is on the neck's features, its
            # draws are made there
            noisy = self.neck.bottleneck.noise is not None
            x = self.neck.draws(
                x, draws['attention'], generator, latent if noisy else None
            )
            latent = None if noisy else latent
        elif self.with_neck:
            x = self.neck(x)
        if isinstance(self.head, AIBClsHead):
            logits = self.head(x, latent, generator)
        else:
            logits = self.head(x)
        return logits.unflatten(0, (-1, len(inputs)))
