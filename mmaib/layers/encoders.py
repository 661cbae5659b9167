from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from mmaib.checks import at_least, one_of
from mmaib.losses import Reporter, report_loss
from mmaib.registry import build_part

from .kl_critic import KLCritic
from .own_initialization import OwnInitialization

TRUNKS = ('linear', 'conv1x1', 'conv3x3')
Layer = Callable[[Tensor], Tensor]


def make_trunk(kind: str, in_channels: int, out_channels: int) -> nn.Module:
    """A linear layer or convolution, kind one of ``TRUNKS``."""
    if kind == 'linear':
        return nn.Linear(in_channels, out_channels)
    kernel = 1 if kind == 'conv1x1' else 3
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


class LatentEncoder(Reporter, OwnInitialization):
    """What every encoder :math:`p(z|x,a)` of Section 3.3.2 of [AIB] has:
    its last layer, the base's or its own, and its KL. ``forward(x, layer)``
    draws z as :mod:`mmaib.sampling` asks; ``layer`` is the base model's last
    layer, if ``with_mean=False``.

    Args:
        in_channels: channels of the attended feature.
        latent_channels: K.
        trunk: ``'linear'``, ``'conv1x1'`` or ``'conv3x3'``.
        with_mean: whether it has the last layer, ReLU(trunk(x)). If False,
            it is the base model's.
        beta: weight of the KL; 0.01 in all of [AIB].
        critic: fields of :class:`KLCritic`, for the adversarial KL of Eq.
            20; None for the closed form of Eq. 19, which needs a density.
        loss_name: key of the KL in the loss dict. The critic's loss is
            ``loss_critic...`` beside ``loss_kl...``, or has ``_critic``
            added to another name.
        init_cfg: see MMEngine.

    Shape:
        x ``(N, in_channels)`` or ``(N, in_channels, H, W)`` -> z of the same
        rank with K channels, ``(L_z * N, ...)`` draw by draw.

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        trunk: str = 'linear',
        with_mean: bool = True,
        beta: float = 0.01,
        critic: dict | None = None,
        loss_name: str = 'loss_kl',
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = at_least('in_channels', in_channels, 1)
        self.latent_channels = at_least('latent_channels', latent_channels, 1)
        self.trunk = one_of('trunk', trunk, TRUNKS)
        self.beta = at_least('beta', beta, 0.0)
        self.loss_name = loss_name
        self.mean: nn.Module | None = None
        if with_mean:
            self.mean = make_trunk(trunk, in_channels, latent_channels)
        self.critic: KLCritic | None = None
        if critic is not None:
            self.critic = build_part(
                'critic',
                critic,
                'mmaib.KLCritic',
                latent_channels=latent_channels,
            )

    def apply_layer(self, layer: Layer | None, x: Tensor) -> Tensor:
        """The last layer on x.

        Args:
            layer: the base model's, if ``with_mean=False``.
            x: the attended feature.

        Raises:
            ValueError: if there is none.
        """
        if layer is not None:
            return layer(x)
        if self.mean is None:
            raise ValueError('with_mean=False: give forward() the base layer')
        return self.mean(x).relu()

    def report_kl(self, z: Tensor, kl: Tensor | None = None) -> None:
        """Report beta times the KL as ``loss_name``: with a critic the
        encoder's part of Eq. 20, and the critic's loss beside it.

        Args:
            z: drawn latents.
            kl: in closed form, if there is one.
        """
        if self.critic is not None:
            kl, loss = self.critic(z)
            name = self.loss_name.replace('loss_kl', 'loss_critic')
            if name == self.loss_name:
                name += '_critic'
            report_loss(name, loss)
        if kl is not None:
            report_loss(self.loss_name, self.beta * kl)
