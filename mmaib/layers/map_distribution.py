from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from torch import Tensor

from mmaib.functional import gaussian_kl, join_levels
from mmaib.sampling.draws import current, draw_maps, repeat_maps

Change = Callable[[Tensor], Tensor]


class Activations(NamedTuple):
    """Elementwise functions that give mean and std."""

    mean: Change
    std: Change


def _identity(x: Tensor) -> Tensor:
    return x


NONE = Activations(_identity, _identity)


class MapDistribution:
    """What a map module gives for features: the distribution of its scores.

    Scores are independent Gaussians with ``std``, or all alike without one.

    Args:
        mean: the mean map, ``(N, 1, H, W)``, float32 or wider.
        std: of its scores, of the same shape, or a function without arguments
            that computes it, called once at most: at the mean nothing needs
            it. None for scores without noise of their own.
        geometry: parameters ``(N, 5)`` of a map that is a rectangle, see
            :mod:`mmaib.functional.rectangle`.
        activations: what ``mean`` and ``std`` still have to pass, here once
            for all levels of a pyramid.
        grids: height and width of each level, where several lie side by side
            (:meth:`of_levels`).

    Example:
        >>> from mmaib.sampling.draws import Draws
        >>> mean = torch.rand(2, 1, 32, 32)
        >>> maps = MapDistribution(mean, lambda: torch.full_like(mean, 0.1))
        >>> with Draws(attention=4).open():
        ...     maps.sample().shape, maps.kl().shape
        (torch.Size([8, 1, 32, 32]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor | Callable[[], Tensor] | None = None,
        geometry: Tensor | None = None,
        activations: Activations = NONE,
        grids: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._given_mean = mean
        self._given_std = std
        # after the activations, once they are asked for
        self._mean: Tensor | None = None
        self._std: Tensor | None = None
        self.geometry = geometry
        self._activations = activations
        self.grids = grids

    @classmethod
    def of_levels(cls, levels: Sequence[MapDistribution]) -> MapDistribution:
        """The maps of one module on several levels, side by side ``(N, 1, 1,
        T)``; draws are identical to those made level by level."""
        first = levels[0]
        if len(levels) == 1:
            return first
        if any(m._activations != first._activations for m in levels):
            levels = [m.changed(_identity) for m in levels]
        means = [m._given_mean for m in levels]

        def std() -> Tensor:
            return join_levels([cast(Tensor, m._raw_std) for m in levels])

        return cls(
            join_levels(means),
            None if first._given_std is None else std,
            activations=levels[0]._activations,
            grids=[(x.size(2), x.size(3)) for x in means],
        )

    @property
    def mean(self) -> Tensor:
        """The mean map, ``(N, 1, H, W)``."""
        if self._mean is None:
            self._mean = self._activations.mean(self._given_mean)
        return self._mean

    @property
    def std(self) -> Tensor | None:
        """sigma_a, ``(N, 1, H, W)``, or None."""
        raw = self._raw_std
        if raw is not None and self._std is None:
            self._std = self._activations.std(raw)
        return self._std

    @property
    def _raw_std(self) -> Tensor | None:
        if callable(self._given_std):
            self._given_std = self._given_std()
        return self._given_std

    def sample(self, keep_std: bool = False) -> Tensor:
        """Maps as :mod:`mmaib.sampling` asks.

        Args:
            keep_std: whether the std stays in the graph at the mean too, with
                weight 0, as in training: DDP allows no unused parameters.

        Returns:
            ``(L_a * N, 1, H, W)``, draw by draw; the mean map ``(N, 1, H,
            W)`` where none is drawn.
        """
        if current().attention is None and not keep_std:
            return self.mean
        if self._given_std is None:
            return repeat_maps(self.mean)
        return draw_maps(self.mean, self.std, self.grids)

    def kl(self) -> Tensor | None:
        """The KL of each score to N(0, 1) in nats, ``(N, 1, H, W)``; None
        where nothing is random."""
        std = self.std
        return None if std is None else gaussian_kl(self.mean, std)

    def changed(
        self, change: Change, change_std: Change | None = None
    ) -> MapDistribution:
        """A copy with changed maps, without geometry.

        Args:
            change: of the mean, ``(N, 1, H, W)``.
            change_std: of the std, ``change`` by default.
        """
        of_std = change_std or change

        def std() -> Tensor:
            return of_std(cast(Tensor, self.std))

        return MapDistribution(
            change(self.mean), None if self._given_std is None else std
        )
