from __future__ import annotations

from typing import Any

from mmengine.model import constant_init
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.functional import gaussian_kl, softplus_std
from mmaib.losses import collecting, report_scalar
from mmaib.registry import MODELS
from mmaib.sampling import draws

from .encoders import LatentEncoder, Layer, make_trunk
from .image_cells import own_cells, own_mean


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

    Reports ``beta`` times the KL of Eq. 19, in nats, mean over K and
    positions, and the KL itself as the monitors ``kl_nats`` and, summed over
    K, ``kl_nats_sum``: a beta on the mean is beta / K on the sum, by which
    other variational bottlenecks are weighed. With a critic, ``beta`` times
    the encoder's part of Eq. 20 and the critic's loss instead; the monitors
    still give the KL in closed form.

    Args:
        args, kwargs: of :class:`LatentEncoder`.
        std_source: what the std is computed from: ``'feature'``, x, or
            ``'mean'``.
        std_shift: subtracted before the softplus.

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> encoder = GaussianEncoder(in_channels=512, latent_channels=256)
        >>> encoder(torch.rand(2, 512)).shape  # the mean
        torch.Size([2, 256])
        >>> with Draws(latent=4).open():
        ...     encoder(torch.rand(2, 512)).shape
        torch.Size([8, 256])

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        *args: Any,
        std_source: str = 'feature',
        std_shift: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.std_shift = at_least('std_shift', std_shift, 0.0)
        self.std_source = one_of('std_source', std_source, ('feature', 'mean'))
        source_channels = self.in_channels
        if std_source == 'mean':
            source_channels = self.latent_channels
        self.std = make_trunk(
            self.trunk, source_channels, self.latent_channels
        )
        self.start()

    def start(self) -> None:
        constant_init(self.std, 0)

    def forward(self, x: Tensor, layer: Layer | None = None) -> Tensor:
        mean = self.apply_layer(layer, x)
        reports = collecting(self.training)
        if draws.current().latent is None and not reports:
            return mean
        source = mean if self.std_source == 'mean' else x
        std = softplus_std(self.std(source), self.std_shift)
        z = draws.draw_latents(mean, std)
        if reports:
            kl = gaussian_kl(mean, std)
            cells = own_cells(kl)
            if cells is None:
                # Not mean(): the mean over no RoIs is NaN.
                kl = kl.sum() / max(kl.numel(), 1)
            else:
                kl = own_mean(kl, cells)
            report_scalar('kl_nats', kl)
            report_scalar('kl_nats_sum', self.latent_channels * kl)
            self.report_kl(z, kl)
        return z.to(mean.dtype)
