from __future__ import annotations

from typing import Any

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from mmaib.aux_losses import AuxLossMixin
from mmaib.checks import evaluation_draws, one_of
from mmaib.layers import AIBNeck, AttentiveBottleneck, GaussianEncoder
from mmaib.registry import MODELS

from .aib_uper_head import AIBUPerHead


@MODELS.register_module()
class AIBEncoderDecoder(AuxLossMixin, EncoderDecoder):
    """Segmentor with IB attention (Section 4.2.4 of [AIB]).

    ::

        image -> backbone -> AIBNeck -> AIBUPerHead -> logits
                                |   `-> auxiliary head |
                       loss_vq, loss_commit         loss_kl
                          (loss_kl_map)

    Any of mmseg's decode heads works; one without a Gaussian latent has no
    KL of its own, so it goes with ``kl_on='map'``.

    Args:
        test_draws: how to evaluate. ``'mean'``, the mean map and latent,
            deterministic and as fast as the host; or
            ``dict(attention=L_a, latent=L_z, seed=0)``, Monte-Carlo: in each
            window the backbone runs once, all draws pass neck and head as
            one batch, and logits are averaged. ``latent`` may be
            ``'mean'``. The noise comes from a generator of its own, seeded
            anew in each window, so an evaluation repeats exactly, does not
            depend on the order of images, and leaves the global generator
            alone.
        kl_on: which Gaussian the KL holds to the prior: ``'latent'``
            ([AIB]), ``'map'`` (its authors' later models) or ``'both'``.
            The weight of the latent's is ``decode_head.beta``, the map's
            ``neck.bottleneck.beta``; the one not named here is set to 0.
        args, kwargs: of mmseg's ``EncoderDecoder``.

    Raises:
        ValueError: if a field is out of range, or asks for draws or a KL
            from a part that has none to give.
    """

    def __init__(
        self,
        *args: Any,
        test_draws: str | dict = 'mean',
        kl_on: str = 'latent',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.test_draws = evaluation_draws(test_draws)
        neck = getattr(self, 'neck', None)
        if self.test_draws is not None and not isinstance(neck, AIBNeck):
            raise ValueError(
                'test_draws needs an mmaib.AIBNeck as neck, '
                f'got {type(neck).__name__}'
            )
        self._check_one_class()
        self._weigh_kl(one_of('kl_on', kl_on, ('latent', 'map', 'both')))

    def _check_one_class(self) -> None:
        """Refuse a loss that is zero whatever is predicted."""
        losses = self.decode_head.loss_decode
        losses = losses if isinstance(losses, nn.ModuleList) else [losses]
        sigmoid = all(getattr(loss, 'use_sigmoid', True) for loss in losses)
        if self.out_channels == 1 and not sigmoid:
            raise ValueError(
                f'decode_head.num_classes={self.num_classes} with one output '
                'channel: the softmax cross entropy of a single class is '
                'always 0. Set loss_decode.use_sigmoid=True, or two classes'
            )

    def _weigh_kl(self, kl_on: str) -> None:
        """Leave a weight only to the KL that ``kl_on`` names."""
        weighed: dict[str, tuple[type, str]] = {
            'latent': (GaussianEncoder, 'decode_head.beta'),
            'map': (AttentiveBottleneck, 'neck.bottleneck.beta'),
        }
        for name, (kind, field) in weighed.items():
            layers: list[Any] = [
                module for module in self.modules() if isinstance(module, kind)
            ]
            if kl_on not in (name, 'both'):
                for layer in layers:
                    layer.beta = 0.0
            elif not any(layer.beta > 0 for layer in layers):
                raise ValueError(
                    f'kl_on={kl_on!r} needs {field} > 0, got '
                    f'{layers[0].beta if layers else "no such layer"} '
                    f'({type(self.decode_head).__name__} behind '
                    f'{type(getattr(self, "neck", None)).__name__})'
                )

    def encode_decode(
        self, inputs: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Logits of images or windows, averaged over draws if there are."""
        if self.test_draws is None:
            return super().encode_decode(inputs, batch_img_metas)
        generator = torch.Generator(inputs.device)
        generator.manual_seed(self.test_draws['seed'])
        x = self.neck.draws(
            self.backbone(inputs), self.test_draws['attention'], generator
        )
        latent = {}
        if isinstance(self.decode_head, AIBUPerHead):
            latent = dict(
                num_draws=self.test_draws['latent'], generator=generator
            )
        logits = self.decode_head(x, **latent)
        logits = logits.unflatten(0, (-1, len(inputs))).mean(0)
        return self.decode_head.predict_by_feat(logits, batch_img_metas)
