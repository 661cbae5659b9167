"""How layers learn how many maps and latents to sample.

A model opens :class:`Draws` around its training step or its evaluation, and
layers read it from this context: neither a number of draws nor a generator is
passed as an argument. Outside of it, as in a teacher's forward without
gradient within a student's step, every layer works at its mean.

Draws are folded into the batch, draw by draw: row ``l * N + n`` is draw l of
element n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaib.checks import at_least, one_of
from mmaib.contexts import ContextStack
from mmaib.functional import draw_gaussian

FIELDS = ('attention', 'latent')
AVERAGES = ('logits', 'probabilities')
ROIS = ('all', 'kept')


@dataclass(frozen=True)
class Draws:
    """How many maps and latents are drawn, and from which noise.

    Args:
        attention: L_a of [AIB]; None is the mean map.
        latent: L_z of [AIB], for each map; None is the mean latent.
        seed: of a generator of its own, seeded anew each time it is opened,
            so that an evaluation repeats exactly and the global generator
            is left alone; None takes the global one.
        average: what a prediction is the mean of, ``'logits'`` or
            ``'probabilities'``.
        uncertainty: whether predictions give how far the draws differ.
        rois: for which RoIs a two-stage detector draws, ``'all'`` or those
            ``'kept'`` by a pass at the mean and its NMS; None is ``'kept'``
            where maps are drawn with uncertainty, else ``'all'``: latents
            alone repeat no RoIAlign.

    Example:
        >>> mean, std = torch.rand(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
        >>> with Draws(attention=4, seed=0).open():
        ...     draw_maps(mean, std).shape
        torch.Size([8, 1, 32, 32])
    """

    attention: int | None = None
    latent: int | None = None
    seed: int | None = None
    average: str = 'logits'
    uncertainty: bool = False
    rois: str | None = None

    @classmethod
    def from_config(cls, field: str, value: Any) -> Draws:
        """Built from ``'mean'`` or ``dict(attention=L_a, latent=L_z)``, with
        ``seed``, ``average``, ``uncertainty`` and ``rois`` in
        ``test_draws``; what is left out is the mean.

        Raises:
            ValueError: naming the field, if the value does not fit.
        """
        if isinstance(value, cls):
            return value
        if value == 'mean':
            return cls()
        of_tests = {'seed', 'average', 'uncertainty', 'rois'}
        known = {*FIELDS, *(of_tests if field == 'test_draws' else ())}
        if not (isinstance(value, dict) and value and value.keys() <= known):
            raise ValueError(
                f"{field} must be 'mean' or a dict with some of "
                f'{sorted(known)}, got {value!r}'
            )
        counts = [
            _count(f'{field}.{name}', value.get(name, 'mean'))
            for name in FIELDS
        ]
        seed = None
        if field == 'test_draws':
            seed = at_least('test_draws.seed', value.get('seed', 0), 0)
        draws = cls(
            counts[0],
            counts[1],
            seed,
            one_of(
                f'{field}.average', value.get('average', 'logits'), AVERAGES
            ),
            one_of(
                f'{field}.uncertainty',
                value.get('uncertainty', False),
                (True, False),
            ),
            one_of(f'{field}.rois', value.get('rois'), (*ROIS, None)),
        )
        if draws.uncertainty and draws.count < 2:
            raise ValueError(
                f'{field}.uncertainty=True gives how far draws differ, and '
                f'needs two or more: {field}=dict(latent=8, '
                f'uncertainty=True) for instance, got {value!r}'
            )
        for name, default in (('average', 'logits'), ('rois', None)):
            given = getattr(draws, name)
            if draws.mean and given != default:
                raise ValueError(
                    f'{field}.{name}={given!r} needs draws to average: '
                    f'{field}=dict(latent=8, {name}={given!r}) for instance, '
                    f'got {value!r}'
                )
        return draws

    @property
    def mean(self) -> bool:
        """Whether nothing is drawn."""
        return self.attention is None and self.latent is None

    @property
    def count(self) -> int:
        """How many draws there are, L_a * L_z."""
        return (self.attention or 1) * (self.latent or 1)

    @property
    def mean_logits(self) -> bool:
        """Whether nothing but the mean of the logits is asked for."""
        return self.average == 'logits' and not self.uncertainty

    @property
    def kept_rois(self) -> bool:
        """Whether a two-stage detector draws for the RoIs that it keeps
        alone."""
        if self.rois is None:
            return self.uncertainty and self.attention is not None
        return self.rois == 'kept'

    @contextmanager
    def open(self, device: torch.device | str = 'cpu') -> Iterator[None]:
        """Let the layers inside the ``with`` draw so.

        Args:
            device: of the features, for the generator.
        """
        generator = None
        if self.seed is not None and not self.mean:
            generator = torch.Generator(device).manual_seed(self.seed)
        with _active.open(_Open(self, generator, torch.is_grad_enabled())):
            yield


def _count(field: str, value: Any) -> int | None:
    if value == 'mean':
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{field} must be 'mean' or an integer >= 1, got {value!r}"
        )
    return value


class _Open(NamedTuple):
    draws: Draws
    generator: torch.Generator | None
    with_gradient: bool


_MEAN = _Open(Draws(), None, False)
_active: ContextStack[_Open] = ContextStack('mmaib.sampling.draws')


def _current() -> _Open:
    opened = _active.innermost()
    if opened is None:
        return _MEAN
    if opened.with_gradient and not torch.is_grad_enabled():
        return _MEAN  # a teacher's forward within a student's step
    return opened


def current() -> Draws:
    """What is to be drawn here."""
    return _current().draws


def draw_maps(
    mean: Tensor, std: Tensor | None, grids: Sequence[Sequence[int]] = ()
) -> Tensor:
    """Draws of maps ``(L_a * N, ...)``, or their mean ``(N, ...)``; of maps
    of several levels side by side, their grids are needed."""
    return _draw(mean, std, current().attention, grids)


def repeat_maps(mean: Tensor) -> Tensor:
    """A deterministic map repeated once per draw, ``(L_a * N, ...)``; once at
    the mean."""
    count = current().attention or 1
    return mean.repeat(count, *[1] * (mean.dim() - 1)) if count > 1 else mean


def draw_latents(mean: Tensor, std: Tensor | None) -> Tensor:
    """Draws of latents ``(L_z * N, ...)``, or their mean ``(N, ...)``."""
    return _draw(mean, std, current().latent)


def _draw(
    mean: Tensor,
    std: Tensor | None,
    count: int | None,
    grids: Sequence[Sequence[int]] = (),
) -> Tensor:
    if std is None:
        return mean
    if count is None:
        # The std stays in the graph: DDP allows no unused parameters.
        return mean + 0 * std if std.requires_grad else mean
    return draw_gaussian(mean, std, count, _current().generator, grids)


def latent_noise(x: Tensor) -> Tensor | None:
    """Standard normal noise ``(L_z * N, ...)`` for features of x's shape;
    None at the mean."""
    _, generator, _ = _current()
    count = current().latent
    if count is None:
        return None
    return torch.randn(
        (count, *x.shape), dtype=x.dtype, device=x.device, generator=generator
    ).flatten(0, 1)


def map_noise(x: Tensor) -> Tensor | None:
    """Standard normal noise of the shape of features that have a row for
    each drawn map; None where maps are at their mean."""
    _, generator, _ = _current()
    if current().attention is None:
        return None
    return torch.randn(
        x.shape, dtype=x.dtype, device=x.device, generator=generator
    )


def mean_over_draws(x: Tensor, batch: int) -> Tensor:
    """The mean over the draws that are folded into the batch of x.

    Args:
        x: ``(L * N, ...)``.
        batch: N.

    Returns:
        ``(N, ...)``, x itself without draws.
    """
    if len(x) == batch:
        return x
    return x.unflatten(0, (-1, batch)).mean(0)
