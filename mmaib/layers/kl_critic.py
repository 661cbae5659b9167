from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.func import functional_call

from mmaib.checks import at_least
from mmaib.functional import adversarial_kl, critic_loss
from mmaib.functional.gaussian import at_least_float32
from mmaib.registry import MODELS

from .image_cells import own_cells


@MODELS.register_module()
class KLCritic(BaseModule):
    r"""Distinguishes latents from samples of N(0, 1), Eq. 20 of [AIB].

    ::

        z --> FC(K, K) --> LeakyReLU --> FC(K, K) --> LeakyReLU --> FC(K, 1)

    with dropout after each LeakyReLU. [AIB] iterates two steps: the critic
    with the encoder fixed, then the encoder with the critic fixed. Here one
    forward and one backward do both: the critic's loss sees latents without
    their graph, the encoder's term sees the critic with constant weights.
    Its learning rate is a matter of the config,
    ``paramwise_cfg=dict(custom_keys={'critic': dict(lr_mult=...)})``.

    Args:
        latent_channels: K.
        dropout: rate of both dropouts.
        max_rows: of the vectors of a convolutional latent (positions times
            batch) so many are looked at, chosen at random.
        saturating: whether the encoder's term is Eq. 20 as it stands, or
            the form whose gradient does not vanish where the critic is
            certain (see :func:`adversarial_kl`).
        num_steps: of the critic for one of the encoder: its term has a
            gradient in one call of so many, chosen at random, as a head may
            call the encoder once for each level. 1 is [AIB]'s.
        init_cfg: see MMEngine.

    Shape:
        z ``(N, K)`` or ``(N, K, H, W)`` -> two scalars: the encoder's term
        with gradient to z alone, and the critic's loss with gradient to the
        critic alone.

    Example:
        >>> critic = KLCritic(latent_channels=256)
        >>> kl, loss = critic(torch.rand(2, 256, 16, 16))
        >>> kl.shape, loss.shape
        (torch.Size([]), torch.Size([]))

    Raises:
        ValueError: if a field is out of range.
    """

    def __init__(
        self,
        latent_channels: int,
        dropout: float = 0.2,
        max_rows: int = 4096,
        saturating: bool = True,
        num_steps: int = 1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        channels = at_least('latent_channels', latent_channels, 1)
        if not 0 <= at_least('dropout', dropout, 0.0) < 1:
            raise ValueError(f'dropout must be below 1, got {dropout!r}')
        self.max_rows = at_least('max_rows', max_rows, 1)
        self.saturating = saturating
        self.num_steps = at_least('num_steps', num_steps, 1)
        self.net = nn.Sequential(
            nn.Linear(channels, channels),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, 1),
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        rows = at_least_float32(self._rows(z))
        constant = {
            name: weight.detach()
            for name, weight in self.net.named_parameters()
        }
        # logits in float32: log(1 - D) saturates
        with torch.autocast(rows.device.type, enabled=False):
            critic = critic_loss(
                self.net(torch.randn_like(rows)), self.net(rows.detach())
            )
            logits = functional_call(self.net, constant, (rows,))
            kl = adversarial_kl(logits, self.saturating)
        if self.num_steps > 1 and torch.rand(()) >= 1 / self.num_steps:
            kl = kl.detach()  # the critic's turn alone; the log keeps it
        return kl, critic

    def _rows(self, z: Tensor) -> Tensor:
        """The latent vectors, at most ``max_rows`` of convolutional ones."""
        if z.dim() == 2:
            return z
        rows, cells = z.movedim(1, -1).flatten(0, -2), own_cells(z)
        if cells is not None:
            # whatever is of an image at all, so that none is without a row
            rows = rows[cells.flatten() > 0]
        if len(rows) <= self.max_rows:
            return rows
        chosen = torch.randperm(len(rows), device=z.device)[: self.max_rows]
        return rows.index_select(0, chosen)
