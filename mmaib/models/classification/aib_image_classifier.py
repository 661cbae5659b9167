from __future__ import annotations

from typing import Any

from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor

from mmaib.models import AIBNeck, AuxLossMixin
from mmaib.registry import MODELS
from mmaib.sampling.uncertainty import combine

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
        args, kwargs: of :class:`AuxLossMixin` and mmpretrain's
            ``ImageClassifier``. With ``test_draws`` the features are made
            once, all draws pass encoder and head as one batch, and are
            averaged.

    Raises:
        ValueError: if a field does not fit.
    """

    draw_parts = {
        'attention': {'neck': AIBNeck, 'head': ClsHead},
        'latent': {'head': AIBClsHead},
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
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

    def _check_noise(self) -> None:
        """Refuse a second source of noise after that on the features."""
        bottleneck = getattr(self.neck, 'bottleneck', None)
        if getattr(bottleneck, 'noise', None) is None:
            return
        encoder = getattr(self.head, 'encoder', None)
        if encoder is None:
            return
        if getattr(encoder, 'noise_std', None) != 0:
            raise ValueError(
                'neck.bottleneck.noise makes the latent stochastic: it needs '
                "head.latent=dict(type='mmaib.AdditiveNoiseEncoder', "
                f'noise_std=0.0), got {type(encoder).__name__} with '
                f'noise_std={getattr(encoder, "noise_std", None)}'
            )

    def check_probabilities(self) -> None:
        """Every classification head's logits are those of a softmax."""

    def predict(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        **kwargs: Any,
    ) -> list:
        """Predictions averaged over draws, if there are; with
        ``test_draws.uncertainty`` each sample's ``entropy`` and
        ``mutual_information`` beside its score, in nats."""
        if self.test_draws.mean:
            return super().predict(inputs, data_samples, **kwargs)
        with self.test_draws.open(inputs.device):
            drawn = self.head(self.extract_feat(inputs))
            drawn = drawn.unflatten(0, (-1, len(inputs)))
            logits, measures = combine(drawn, lambda: drawn.mean(0))
        samples = self.head._get_predictions(logits, data_samples, **kwargs)
        for name, values in measures.items():
            for sample, value in zip(samples, values):
                sample.set_field(value, name)
        return samples
