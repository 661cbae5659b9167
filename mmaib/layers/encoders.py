from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmaib.aux_losses import report_loss
from mmaib.checks import a_dict, at_least, draws, one_of
from mmaib.registry import MODELS

from .kl_critic import KLCritic

TRUNKS = ('linear', 'conv1x1', 'conv3x3')
GAUSSIAN = 'mmaib.GaussianEncoder'
# fields of the Gaussian latent that heads pass on, with their defaults
GAUSSIAN_FIELDS = {'std_source': 'feature', 'std_shift': 5.0}
Layer = Callable[[Tensor], Tensor]


def make_trunk(kind: str, in_channels: int, out_channels: int) -> nn.Module:
    """A linear layer or convolution, kind one of ``TRUNKS``."""
    if kind == 'linear':
        return nn.Linear(in_channels, out_channels)
    kernel = 1 if kind == 'conv1x1' else 3
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


class LatentEncoder(BaseModule):
    """What every encoder :math:`p(z|x,a)` of Section 3.3.2 of [AIB] has:
    its last layer, the host's or its own, its draws and its KL.

    Args:
        in_channels: channels of the attended feature.
        latent_channels: K.
        trunk: ``'linear'``, ``'conv1x1'`` or ``'conv3x3'``.
        with_mean: whether it has the last layer, ReLU(trunk(x)). If False,
            it is the host's.
        beta: weight of the KL.
        train_draws: L_z in training, or ``'mean'``.
        loss_name: key of the KL in the loss dict.
        init_cfg: see MMEngine.

    Raises:
        ValueError: if a field is out of range.
    """

    critic: KLCritic | None

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        trunk: str,
        with_mean: bool,
        beta: float,
        train_draws: int | str,
        loss_name: str,
        init_cfg: dict | list | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        at_least('in_channels', in_channels, 1)
        at_least('latent_channels', latent_channels, 1)
        one_of('trunk', trunk, TRUNKS)
        self.beta = at_least('beta', beta, 0.0)
        self.train_draws = draws('train_draws', train_draws)
        self.loss_name = loss_name
        self.mean: nn.Module | None = None
        if with_mean:
            self.mean = make_trunk(trunk, in_channels, latent_channels)

    def init_weights(self) -> None:
        initialized = self.is_init
        super().init_weights()
        # a model-level init_cfg, which comes first, takes every layer
        if not initialized and not self.init_cfg:
            self.zero_init()

    def zero_init(self) -> None:
        """Zero the layers that a latent starts without."""

    def apply_layer(self, layer: Layer | None, x: Tensor) -> Tensor:
        """The last layer on x.

        Args:
            layer: the host's, if ``with_mean=False``.
            x: the attended feature.

        Raises:
            ValueError: if there is none.
        """
        if layer is not None:
            return layer(x)
        if self.mean is None:
            raise ValueError(
                "with_mean=False: give forward() the host's layer"
            )
        return self.mean(x).relu()

    def default_draws(self, num_draws: int | None) -> int | None:
        """L_z: what is asked for, in training ``train_draws``, else none."""
        if num_draws is None and self.training:
            return self.train_draws
        return num_draws

    def report_adversarial(self, critic: KLCritic, z: Tensor) -> None:
        """Report beta times the encoder's part of Eq. 20 as ``loss_name``,
        and the critic's loss beside it (``loss_critic_cls`` beside
        ``loss_kl_cls``)."""
        kl, loss = critic(z)
        report_loss(self.loss_name, self.beta * kl)
        report_loss(self.loss_name.replace('kl', 'critic'), loss)


def build_encoder(
    encoder: dict | None, gaussian: dict[str, Any], **common: Any
) -> LatentEncoder:
    """The stochastic latent that a head's field ``encoder`` names.

    Args:
        encoder: ``dict(type='mmaib.PropagatedNoiseEncoder', noise_std=1.0)``
            and the like; None is a :class:`GaussianEncoder`.
        gaussian: fields that a :class:`GaussianEncoder` alone has.
        common: fields that every encoder has.

    Raises:
        TypeError, ValueError: if ``encoder`` is no dict, sets a field that
            is the head's, or is no Gaussian one and a field asks for that.
    """
    config = {'type': GAUSSIAN, **a_dict('encoder', encoder)}
    if owned := sorted(config.keys() & common.keys()):
        raise ValueError(
            f"encoder={encoder} sets {owned}, which are the head's own: set "
            'them there'
        )
    if config['type'] == GAUSSIAN:
        return MODELS.build({**common, **gaussian, **config})
    for field, default in GAUSSIAN_FIELDS.items():
        if gaussian.get(field, default) != default:
            raise ValueError(
                f'{field}={gaussian[field]!r} is a field of the Gaussian '
                f'latent, which {config["type"]} is not: leave it out'
            )
    return MODELS.build({**common, **config})
