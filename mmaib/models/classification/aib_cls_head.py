from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models import ClsHead
from torch import Tensor, nn

from mmaib.checks import at_least, one_of
from mmaib.losses import require_collector
from mmaib.registry import MODELS, build_part

DECODERS = ('linear', 'relu', 'mlp')


@MODELS.register_module()
class AIBClsHead(ClsHead):
    r"""Classifier of a stochastic latent (Table 1 of [AIB]).

    ::

        feature --> pooling --> FC(in, K) --> mu_z --> z --> decoder --> logits
                       '------> FC(in, K) --> sigma_z -'

    With ``latent_channels=None`` and ``decoder='linear'`` the mean is the
    pooled feature itself and the predictor that of mmpretrain's
    ``LinearClsHead``, whose checkpoints load as they are; with
    ``decoder='relu'`` those of its ``StackedLinearClsHead`` with one hidden
    layer do. With the std at zero this is that head.

    Reports ``loss_kl`` and the monitors ``kl_nats`` and ``kl_nats_sum``.

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
        latent: config of the latent, of its ``beta`` for instance; a
            :class:`GaussianEncoder` unless its ``type`` says otherwise.
        kwargs: of mmpretrain's ``ClsHead``.

    Shape:
        a tuple whose last is ``(N, in_channels, H, W)`` or ``(N,
        in_channels)`` -> logits ``(N, num_classes)``; ``L_z * N`` of them,
        draw by draw, where :mod:`mmaib.sampling.draws` has L_z latents drawn.

    Raises:
        ValueError: if a field is out of range.
    """

    after_features = ('fc_mean', 'encoder', 'hidden', 'fc')

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        latent_channels: int | None = 256,
        decoder: str = 'mlp',
        pool_size: int = 1,
        latent: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = at_least('num_classes', num_classes, 1)
        self.in_channels = at_least('in_channels', in_channels, 1)
        self.decoder = one_of('decoder', decoder, DECODERS)
        self.pool = nn.AdaptiveAvgPool2d(at_least('pool_size', pool_size, 1))
        self.inputs = inputs = in_channels * pool_size**2
        self.fc_mean: nn.Module = nn.Identity()
        width = inputs
        if latent_channels is not None:
            width = at_least('latent_channels', latent_channels, 1)
            self.fc_mean = nn.Linear(inputs, width)
        self.encoder = build_part(
            'latent',
            latent,
            'mmaib.GaussianEncoder',
            in_channels=inputs,
            latent_channels=width,
            trunk='linear',
            with_mean=False,
        )
        hidden: list[nn.Module] = []
        if decoder == 'mlp':
            hidden.append(nn.Linear(width, width))
        if decoder != 'linear':
            hidden.append(nn.ReLU())
        self.hidden = nn.Sequential(*hidden)
        self.fc = nn.Linear(width, num_classes)

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

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """What the last linear layer ``fc`` sees."""
        return self.hidden(self.encoder(self.pooled(feats), self.fc_mean))

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        if self.training:
            require_collector('AIBClsHead')
        return self.fc(self.pre_logits(feats))

    def _get_loss(
        self, cls_score: Tensor, data_samples: list, **kwargs: Any
    ) -> dict:
        """mmpretrain's losses, their mean over the L_z draws (Eq. 18 of
        [AIB])."""
        draws = len(cls_score) // len(data_samples)
        return super()._get_loss(cls_score, data_samples * draws, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        """Map the keys of a StackedLinearClsHead of one hidden layer."""
        if self.decoder == 'relu' and f'{prefix}layers.2.fc.bias' not in (
            state_dict
        ):
            for i, layer in enumerate(('fc_mean', 'fc')):
                for name in ('weight', 'bias'):
                    old = f'{prefix}layers.{i}.fc.{name}'
                    if old in state_dict:
                        state_dict[f'{prefix}{layer}.{name}'] = state_dict.pop(
                            old
                        )
        super()._load_from_state_dict(state_dict, prefix, *args)
