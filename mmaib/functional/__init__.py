"""The papers' equations: tensors in, tensors out, no state."""

from .adversarial import adversarial_kl, critic_loss
from .attention import standardized_logit
from .gaussian import draw_gaussian, gaussian_kl, softplus_std
from .quantization import nearest_anchor, straight_through

__all__ = [
    'adversarial_kl',
    'critic_loss',
    'draw_gaussian',
    'gaussian_kl',
    'nearest_anchor',
    'softplus_std',
    'standardized_logit',
    'straight_through',
]
