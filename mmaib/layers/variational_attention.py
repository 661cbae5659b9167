from __future__ import annotations

from mmengine.model import constant_init
from torch import Tensor, nn

from mmaib.checks import at_least, one_of, part_fields
from mmaib.functional import conv_to_one, softplus_std, standardized
from mmaib.functional.attention import LOGISTIC_STD
from mmaib.functional.gaussian import at_least_float32
from mmaib.registry import MODELS

from .image_cells import own_cells
from .map_distribution import Activations, MapDistribution
from .own_initialization import OwnInitialization


class ConvToOne(nn.Conv2d):
    """``nn.Conv2d`` to one channel by :func:`conv_to_one`."""

    def forward(self, input: Tensor) -> Tensor:
        return conv_to_one(input, self.weight, self.bias)


@MODELS.register_module()
class VariationalAttention(OwnInitialization):
    r"""Gaussian attention map :math:`p(a|x)`, Section 3.3.1 of [AIB].

    .. math::
        \mu_a = \mathrm{sigmoid}(\mathrm{conv}_{3\times3}(x)), \quad
        \sigma_a = \mathrm{softplus}(\mathrm{conv}(s) - 5)

    The std's convolution starts at zero, so that the map starts with
    :math:`\sigma_a = 0.007` whatever the scale of the features.

    As published the map saturates. Under Adam a step moves a logit by the
    learning rate times thousands of inputs, the features' common mode moves
    all of them together, and nothing pulls them back. ``logit_norm`` takes
    the common mode and the scale out.

    Args:
        in_channels: channels C of the features.
        std_source: what the std is computed from: ``'feature'``, s = x
            ([AIB]) or ``'mean'``, s = mu_a (the IJCAI code).
        std_kernel: kernel of the std's convolution: 1 for dense tasks, 3
            for classification.
        std_shift: subtracted before the softplus.
        logit_norm: whether the logits of each map are standardised over its
            positions (:func:`standardized`), which [AIB] does not do,
            or ``'batch'``, by a batch norm, as the IJCAI code does with
            Wide ResNet.
        mean_bias: of the mean's convolution at the start: 0 starts the map
            at 0.5 as [AIB] does, 2 at 0.88. A gate that starts open closes
            where that costs the model least.
        mean_trunk: config of layers before the mean's convolution, a
            module with ``out_channels`` that keeps the grid, such as
            ``mmaib.WideResNetBlocks`` (Tables 1 and 4).
        init_cfg: see MMEngine.

    Shape:
        x ``(N, C, H, W)`` -> :class:`MapDistribution` with mean and std,
        ``(N, 1, H, W)`` each, float32 or wider.

    Example:
        >>> attention = VariationalAttention(in_channels=256)
        >>> maps = attention(torch.rand(2, 256, 32, 32))
        >>> maps.mean.shape, maps.std.shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 1, 32, 32]))

    Raises:
        ValueError: if a field is out of range, or if ``mean_trunk`` changes
            the grid.
    """

    def __init__(
        self,
        in_channels: int,
        std_source: str = 'feature',
        std_kernel: int = 1,
        std_shift: float = 5.0,
        logit_norm: bool | str = False,
        mean_bias: float = 0.0,
        mean_trunk: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        at_least('in_channels', in_channels, 1)
        self.std_source = one_of('std_source', std_source, ('feature', 'mean'))
        self.std_shift = at_least('std_shift', std_shift, 0.0)
        self.logit_norm = one_of(
            'logit_norm', logit_norm, (True, False, 'batch')
        )
        one_of('std_kernel', std_kernel, (1, 3, 5, 7))
        self.mean_bias = at_least('mean_bias', mean_bias, 0.0)
        if logit_norm and mean_bias:
            raise ValueError(
                f'mean_bias={mean_bias}: logit_norm={logit_norm} takes it '
                'away, leave one of them out'
            )
        self.mean_trunk = None
        mean_channels = in_channels
        if mean_trunk is not None:
            self.mean_trunk = MODELS.build(
                part_fields('mean_trunk', mean_trunk)
            )
            given = getattr(self.mean_trunk, 'out_channels', None)
            taken = getattr(self.mean_trunk, 'in_channels', in_channels)
            if not isinstance(given, int) or taken != in_channels:
                raise ValueError(
                    f'mean_trunk must take {in_channels} channels and have '
                    'its out_channels, got '
                    f'{type(self.mean_trunk).__name__} with '
                    f'in_channels={taken}, out_channels={given}'
                )
            mean_channels = given
        self.mean_conv = ConvToOne(
            mean_channels, 1, 3, padding=1, bias=not logit_norm
        )
        self.logit_bn = nn.BatchNorm2d(1) if logit_norm == 'batch' else None
        self.std_conv = ConvToOne(
            in_channels if std_source == 'feature' else 1,
            1,
            std_kernel,
            padding=std_kernel // 2,
        )
        self.start()

    def start(self) -> None:
        """Set what the map starts from, whatever initialised the rest."""
        constant_init(self.std_conv, 0)
        bias = self.mean_conv.bias
        if bias is not None and self.mean_bias:
            nn.init.constant_(bias, self.mean_bias)

    def forward(self, x: Tensor) -> MapDistribution:
        logit = self.mean_conv(self._trunk(x))
        if self.logit_bn is not None:
            logit = self.logit_bn(logit)
        if self.logit_norm is True:
            logit = standardized(logit, cells=own_cells(logit))

        def raw_std() -> Tensor:
            if self.std_source == 'feature':
                return self.std_conv(x)
            return self.std_conv(self._scores(logit).to(x.dtype))

        return MapDistribution(
            logit, raw_std, activations=Activations(self._scores, self._std)
        )

    def _scores(self, logit: Tensor) -> Tensor:
        logit = at_least_float32(logit)
        return (
            LOGISTIC_STD * logit if self.logit_norm is True else logit
        ).sigmoid()

    def _std(self, raw: Tensor) -> Tensor:
        return softplus_std(raw, self.std_shift)

    def _trunk(self, x: Tensor) -> Tensor:
        """What the mean's convolution sees."""
        if self.mean_trunk is None:
            return x
        out = self.mean_trunk(x)
        out = out if isinstance(out, Tensor) else out[-1]
        if out.shape[2:] != x.shape[2:]:
            raise ValueError(
                f'mean_trunk turns a grid of {tuple(x.shape[2:])} into '
                f'{tuple(out.shape[2:])}: take stride 1 and no pooling'
            )
        return out
