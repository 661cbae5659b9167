from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import ClsHead
from torch import Tensor, nn

from mmaib.aux_losses import require_collector
from mmaib.checks import at_least, one_of
from mmaib.layers import build_encoder
from mmaib.registry import MODELS

DECODERS = ('linear', 'relu', 'mlp')


@MODELS.register_module()
class AIBClsHead(ClsHead):
    r"""Classifier of a stochastic latent (Table 1 of [AIB]).

    ::

        feature --> pooling --> FC(in, K) --> mu_z --> z --> decoder --> logits
                       '------> FC(in, K) --> sigma_z -'

    With ``latent_channels=None`` and ``decoder='linear'`` the mean is the
    pooled feature itself and the predictor that of mmpretrain's
    ``LinearClsHead``, whose checkpoints load as they are; with the std at
    zero this is that head.

    Reports ``loss_kl`` and the monitor ``kl_nats``.

    Args:
        num_classes: C.
        in_channels: of the feature.
        latent_channels: K, 256 in [AIB]; None for a latent whose mean is
            the pooled feature.
        decoder: ``'mlp'``, FC(K, K), ReLU, FC(K, C), [AIB]'s with VGG;
            ``'relu'``, ReLU, FC(K, C), its own with Wide ResNet; or
            ``'linear'``, FC(K, C), for which alone the prediction at the
            mean is the mean prediction.
        pool_size: of the average pooling: the encoder sees ``in_channels *
            pool_size ** 2`` numbers.
        beta: weight of the KL, in nats, mean over the K channels.
        std_source: see :class:`GaussianEncoder`.
        std_shift: see :class:`GaussianEncoder`.
        train_draws: see :class:`GaussianEncoder`.
        kl: see :class:`GaussianEncoder`.
        encoder: another latent than the Gaussian one, such as
            ``dict(type='mmaib.AdditiveNoiseEncoder', noise_std=1.0)``.
        kwargs: of mmpretrain's ``ClsHead``.

    Shape:
        a tuple whose last is ``(N, in_channels, H, W)`` or ``(N,
        in_channels)`` -> logits ``(N, num_classes)``; ``L_z * N`` of them,
        draw by draw, if draws are asked for.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        latent_channels: int | None = 256,
        decoder: str = 'mlp',
        pool_size: int = 1,
        beta: float = 0.01,
        std_source: str = 'feature',
        std_shift: float = 5.0,
        train_draws: int | str = 1,
        kl: dict | None = None,
        encoder: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = at_least('num_classes', num_classes, 1)
        self.in_channels = at_least('in_channels', in_channels, 1)
        one_of('decoder', decoder, DECODERS)
        self.pool = nn.AdaptiveAvgPool2d(at_least('pool_size', pool_size, 1))
        self.inputs = inputs = in_channels * pool_size**2
        self.fc_mean: nn.Module = nn.Identity()
        latent = inputs
        if latent_channels is not None:
            latent = at_least('latent_channels', latent_channels, 1)
            self.fc_mean = nn.Linear(inputs, latent)
        self.encoder = build_encoder(
            encoder,
            gaussian=dict(std_source=std_source, std_shift=std_shift),
            in_channels=inputs,
            latent_channels=latent,
            with_mean=False,
            beta=beta,
            train_draws=train_draws,
            kl=kl,
        )
        hidden: list[nn.Module] = []
        if decoder == 'mlp':
            hidden.append(nn.Linear(latent, latent))
        if decoder != 'linear':
            hidden.append(nn.ReLU())
        self.hidden = nn.Sequential(*hidden)
        self.fc = nn.Linear(latent, num_classes)

    def pooled(self, feats: Sequence[Tensor]) -> Tensor:
        """What the encoder sees: the feature of the last level, pooled if
        it is a map."""
        x = feats[-1]
        if x.dim() == 4:
            x = self.pool(x).flatten(1)
        if x.dim() != 2 or x.size(1) != self.inputs:
            raise ValueError(
                f'AIBClsHead takes in_channels * pool_size ** 2 = '
                f'{self.inputs} numbers of an image, got a feature of '
                f'{tuple(feats[-1].shape)}'
            )
        return x

    def pre_logits(
        self,
        feats: Sequence[Tensor],
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the last linear layer ``fc`` sees; fields as of
        :meth:`forward`."""
        x = self.pooled(feats)
        z = self.encoder(x, self.fc_mean, num_draws, generator)
        return self.hidden(z)

    def forward(
        self,
        feats: Sequence[Tensor],
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits of features.

        Args:
            feats: a feature a level, the last counts.
            num_draws: L_z; None is ``train_draws`` in training, the mean in
                evaluation.
            generator: source of the noise; None is the global one.
        """
        if self.training:
            require_collector('AIBClsHead')
        return self.fc(self.pre_logits(feats, num_draws, generator))

    def _get_loss(
        self, cls_score: Tensor, data_samples: list, **kwargs: Any
    ) -> dict:
        """mmpretrain's losses, their mean over the L_z draws (Eq. 18 of
        [AIB])."""
        draws = len(cls_score) // len(data_samples)
        return super()._get_loss(cls_score, data_samples * draws, **kwargs)
