"""How many maps and latents are sampled, and what they give together:
their mean, and how far they differ."""

from .draws import (
    Draws,
    current,
    draw_latents,
    draw_maps,
    latent_noise,
    map_noise,
    mean_over_draws,
    repeat_maps,
)
from .uncertainty import Predictive, combine, predictive

__all__ = [
    'Draws',
    'Predictive',
    'combine',
    'current',
    'draw_latents',
    'draw_maps',
    'latent_noise',
    'map_noise',
    'mean_over_draws',
    'predictive',
    'repeat_maps',
]
