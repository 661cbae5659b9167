from __future__ import annotations

from typing import Any

from mmengine.model import constant_init
from torch import Tensor

from mmaib.checks import at_least
from mmaib.losses import collecting
from mmaib.registry import MODELS
from mmaib.sampling.draws import latent_noise

from .encoders import LatentEncoder, Layer, make_trunk


@MODELS.register_module()
class AdditiveNoiseEncoder(LatentEncoder):
    r"""Latent of a feature with noise added, Fig. 5(b) of [AIB].

    .. math::
        z = \mathrm{Enc}(x + \sigma \epsilon), \quad \epsilon \sim N(0, I)

    The encoder is the layer after the noise, the base model's or its own. The
    latent has no density, so its KL is the adversarial one of Eq. 20. The
    map was made of the feature without noise. At the mean there is no noise.

    Reports ``beta`` times the encoder's part of Eq. 20, and the critic's
    loss.

    Args:
        args, kwargs: of :class:`LatentEncoder`.
        noise_std: sigma; 0 where the noise is on the features before the
            modulation (:class:`FeatureNoise`), which draws it there.
        critic: fields of :class:`KLCritic`; None is none of them, as there
            is no closed form.

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> encoder = AdditiveNoiseEncoder(512, latent_channels=256)
        >>> with Draws(latent=4).open():
        ...     encoder(torch.rand(2, 512)).shape
        torch.Size([8, 256])

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self, *args: Any, noise_std: float = 1.0, **kwargs: Any
    ) -> None:
        kwargs['critic'] = kwargs.get('critic') or {}
        super().__init__(*args, **kwargs)
        self.noise_std = at_least('noise_std', noise_std, 0.0)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        noise = latent_noise(x) if self.noise_std else None
        if noise is not None:
            copies = len(noise) // max(len(x), 1)
            x = x.repeat(copies, *[1] * (x.dim() - 1))
            x = x + self.propagated(self.noise_std * noise)
        z = self.apply_layer(layer, x)
        if collecting(self.training):
            self.report_kl(z)
        return z

    def propagated(self, noise: Tensor) -> Tensor:
        """What the noise adds to the feature."""
        return noise


@MODELS.register_module()
class PropagatedNoiseEncoder(AdditiveNoiseEncoder):
    r"""Latent of a feature with noise beside it, Fig. 5(c) of [AIB].

    .. math:: z = \mathrm{Enc}(\mathrm{cat}(x, \sigma \epsilon))

    A linear layer W on the concatenation is a sum,
    :math:`W x + W' \sigma \epsilon`. Here :math:`W' = W P` with a learned
    linear P that starts at zero: the base layer keeps its weights and its
    shape, and the first forward is the base model's.

    Args:
        args, kwargs: of :class:`AdditiveNoiseEncoder`.

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> encoder = PropagatedNoiseEncoder(512, 256, trunk='conv3x3')
        >>> with Draws(latent=4).open():
        ...     encoder(torch.rand(2, 512, 16, 16)).shape
        torch.Size([8, 256, 16, 16])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = 'linear' if self.trunk == 'linear' else 'conv1x1'
        self.propagate = make_trunk(kind, self.in_channels, self.in_channels)
        self.propagate.register_parameter('bias', None)
        self.start()

    def start(self) -> None:
        constant_init(self.propagate, 0)

    def propagated(self, noise: Tensor) -> Tensor:
        return self.propagate(noise)
