from __future__ import annotations

import torch
from mmengine.model import constant_init
from torch import Tensor

from mmaib.aux_losses import collecting
from mmaib.checks import at_least
from mmaib.registry import MODELS

from .encoders import LatentEncoder, Layer, make_trunk
from .kl_critic import build_critic


@MODELS.register_module()
class AdditiveNoiseEncoder(LatentEncoder):
    r"""Latent of a feature with noise added, Fig. 5(b) of [AIB].

    .. math::
        z = \mathrm{Enc}(x + \sigma \epsilon), \quad \epsilon \sim N(0, I)

    The encoder is the layer behind the noise, the host's or its own. The
    latent has no density, so its KL is the adversarial one of Eq. 20. The
    map was made of the feature without noise. Evaluation is without noise,
    unless it asks for draws.

    Reports ``beta`` times the encoder's part of Eq. 20 as ``loss_name`` and
    the critic's loss as ``loss_critic`` (``loss_critic_cls`` beside
    ``loss_kl_cls``).

    Args:
        in_channels: channels of the attended feature.
        latent_channels: K.
        trunk: ``'linear'``, ``'conv1x1'`` or ``'conv3x3'``.
        with_mean: whether the encoder has the layer, ReLU(trunk(x)). If
            False, it is the host's.
        noise_std: sigma; 0 where the noise is on the features in front of
            the modulation (:class:`FeatureNoise`).
        beta: weight of the KL.
        train_draws: L_z in training.
        loss_name: key of the KL in the loss dict.
        kl: ``dict(type='adversarial')`` with fields of :class:`KLCritic`.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, in_channels)`` or ``(N, in_channels, H, W)`` -> z of the same
        rank with K channels.

    Raises:
        ValueError: if a field is out of range, or asks for a closed form.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        trunk: str = 'linear',
        with_mean: bool = True,
        noise_std: float = 1.0,
        beta: float = 0.01,
        train_draws: int | str = 1,
        loss_name: str = 'loss_kl',
        kl: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            latent_channels,
            trunk,
            with_mean,
            beta,
            train_draws,
            loss_name,
            init_cfg,
        )
        self.noise_std = at_least('noise_std', noise_std, 0.0)
        self.critic = build_critic(
            kl, latent_channels, self.train_draws, density=False
        )

    def forward(
        self,
        x: Tensor,
        layer: Layer | None = None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw z.

        Args:
            x: the attended feature.
            layer: of the host, x -> z, if ``with_mean=False``.
            num_draws: L_z; None takes ``train_draws`` in training and no
                noise in evaluation.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L * N, ...)``, draw by draw.
        """
        num_draws = self.default_draws(num_draws)
        if num_draws is not None:
            noise = torch.randn(
                (num_draws, *x.shape),
                dtype=x.dtype,
                device=x.device,
                generator=generator,
            )
            noise = self.enter(self.noise_std * noise.flatten(0, 1))
            x = x.repeat(num_draws, *[1] * (x.dim() - 1)) + noise
        z = self.apply_layer(layer, x)
        if collecting(self.training) and self.critic is not None:
            self.report_adversarial(self.critic, z)
        return z

    def enter(self, noise: Tensor) -> Tensor:
        """What the noise adds to the feature."""
        return noise


@MODELS.register_module()
class PropagatedNoiseEncoder(AdditiveNoiseEncoder):
    r"""Latent of a feature with noise beside it, Fig. 5(c) of [AIB].

    .. math:: z = \mathrm{Enc}(\mathrm{cat}(x, \sigma \epsilon))

    A linear layer W on the concatenation is a sum,
    :math:`W x + W' \sigma \epsilon`. Here :math:`W' = W P` with a learned
    linear P that starts at zero: the host's layer keeps its weights and its
    shape, and the first forward is the host's.

    Args:
        args, kwargs: of :class:`AdditiveNoiseEncoder`.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        trunk: str = 'linear',
        *args: object,
        **kwargs: object,
    ) -> None:
        super().__init__(
            in_channels,
            latent_channels,
            trunk,
            *args,  # type: ignore[arg-type]
            **kwargs,  # type: ignore[arg-type]
        )
        kind = 'linear' if trunk == 'linear' else 'conv1x1'
        self.propagate = make_trunk(kind, in_channels, in_channels)
        self.propagate.register_parameter('bias', None)
        self.zero_init()

    def zero_init(self) -> None:
        constant_init(self.propagate, 0)

    def enter(self, noise: Tensor) -> Tensor:
        return self.propagate(noise)
