from __future__ import annotations

import torch
from mmengine.model import constant_init
from torch import Tensor

from mmaib.aux_losses import collecting, report_loss, report_scalar
from mmaib.checks import at_least, one_of
from mmaib.functional import draw_gaussian, gaussian_kl, softplus_std
from mmaib.registry import MODELS

from .encoders import LatentEncoder, Layer, make_trunk
from .kl_critic import build_critic


@MODELS.register_module()
class GaussianEncoder(LatentEncoder):
    r"""Gaussian latent :math:`p(z|x,a)` of an attended feature, Section
    3.3.2 of [AIB].

    .. math::
        z = \mu_z + \sigma_z \odot \epsilon, \quad \epsilon \sim N(0, I),
        \quad \sigma_z = \mathrm{softplus}(f_\sigma(x_{at}) - 5)

    Put it right before a *linear* predictor: then the prediction at the
    mean is the mean prediction, and evaluation without noise is honest. The
    std's layer starts with zero weights, :math:`\sigma_z = 0.007` for
    features of any scale.

    Reports ``beta`` times the KL of Eq. 19 as ``loss_name``, and the KL
    itself as the monitor ``kl_nats``. With an adversarial ``kl``, ``beta``
    times the encoder's part of Eq. 20 instead, and the critic's loss as
    ``loss_critic`` (``loss_critic_cls`` beside ``loss_kl_cls``); ``kl_nats``
    still tells the KL in closed form.

    Args:
        in_channels: channels of the attended feature.
        latent_channels: K.
        trunk: ``'linear'``, ``'conv1x1'`` or ``'conv3x3'``.
        with_mean: whether the encoder computes the mean, as
            ReLU(trunk(x)). If False, the host's own layer gives it.
        std_source: what the std is computed from: ``'feature'``, x, or
            ``'mean'``.
        beta: weight of the KL; 0.01 in all of [AIB].
        std_shift: subtracted before the softplus.
        train_draws: L_z in training, 1 in [AIB], or ``'mean'``, no noise.
            The head averages its losses over them (Eq. 18). Evaluation
            takes the mean unless it asks for draws.
        loss_name: key of the KL in the loss dict.
        kl: how to evaluate the KL. ``dict(type='closed_form')``, Eq. 19, or
            ``dict(type='adversarial')`` with the fields of
            :class:`KLCritic`, Eq. 20.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, in_channels)`` or ``(N, in_channels, H, W)`` -> z of the same
        rank with K channels. KL in nats, mean over K and positions.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        trunk: str = 'linear',
        with_mean: bool = True,
        std_source: str = 'feature',
        beta: float = 0.01,
        std_shift: float = 5.0,
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
        self.std_shift = at_least('std_shift', std_shift, 0.0)
        self.std_source = one_of('std_source', std_source, ('feature', 'mean'))
        from_mean = std_source == 'mean'
        source_channels = latent_channels if from_mean else in_channels
        self.std = make_trunk(trunk, source_channels, latent_channels)
        self.zero_init()
        self.critic = build_critic(kl, latent_channels, self.train_draws)

    def zero_init(self) -> None:
        constant_init(self.std, 0)

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
            layer: of the host, x -> mu_z, if ``with_mean=False``.
            num_draws: L_z; None takes ``train_draws`` in training and the
                mean in evaluation.
            generator: source of the noise; None is the global one.

        Returns:
            ``(L * N, ...)``, draw by draw.
        """
        mean = self.apply_layer(layer, x)
        num_draws = self.default_draws(num_draws)
        if num_draws is None and not collecting(self.training):
            return mean
        source = mean if self.std_source == 'mean' else x
        std = softplus_std(self.std(source), self.std_shift)
        z = mean
        if num_draws is not None:
            z = draw_gaussian(mean, std, num_draws, generator)
        if collecting(self.training):
            self._report(mean, std, z)
        return z.to(mean.dtype)

    def _report(self, mean: Tensor, std: Tensor, z: Tensor) -> None:
        kl = gaussian_kl(mean, std)
        # Not mean(): the mean over no RoIs is NaN.
        kl = kl.sum() / max(kl.numel(), 1)
        report_scalar('kl_nats', kl)
        if self.critic is None:
            report_loss(self.loss_name, self.beta * kl)
        else:
            self.report_adversarial(self.critic, z)
