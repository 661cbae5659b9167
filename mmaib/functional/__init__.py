r"""The papers' equations: tensors in, tensors out, no state.

Papers, as they are cited throughout the package:

[AIB]
    Q. Lai, Y. Nie, Y. Li, H. Sun and Q. Xu, "Spatial attention for
    human-centric visual understanding: An Information Bottleneck method",
    Computer Vision and Image Understanding, 2025. Equations, tables and
    sections are this paper's.

    Its conference version, whose classification code is "the authors'
    code": Q. Lai, Y. Li, A. Zeng, M. Liu, H. Sun and Q. Xu, "Information
    Bottleneck Approach to Spatial Attention Learning", IJCAI 2021.

[RECT]
    H.-V. Nguyen, F. Gamboa, S. Zhang, R. Chhaibi, S. Gratton and T. Giaccone,
    "Convolutional Rectangular Attention Module". Cited by name.

Symbols:

=================== =======================================================
:math:`x`           features of the base model, ``(N, C, H, W)``
:math:`a`           attention map, drawn from :math:`p(a|x) = N(\mu_a,
                    \sigma_a^2)`: one score a position, ``(N, 1, H, W)``
:math:`a_q`         the map with each score replaced by the nearest of Q
                    learned anchors :math:`v_1, \dots, v_Q` ("-qt")
:math:`z`           latent of the attended features, drawn from
                    :math:`p(z|x,a) = N(\mu_z, \sigma_z^2)`, K channels
:math:`L_a`,        how many maps are drawn for an image, and how many
:math:`L_z`         latents for each map
:math:`\beta`       weight of the KL of the latent to :math:`N(0, I)`, the
                    price of a nat
=================== =======================================================

The attended features are :math:`x_{at} = x + x \odot a`, unless another
modulation is chosen.
"""

from .adversarial import adversarial_kl, critic_loss
from .attention import conv_to_one, standardized
from .boxes import corners, enclosing, moved, scaled
from .gaussian import draw_gaussian, gaussian_kl, softplus_std
from .information import (
    gate_information,
    information_gate,
    information_of_power,
)
from .levels import join_levels, resize, split_levels
from .quantization import nearest_anchor, straight_through
from .rectangle import (
    l2_residual,
    periodic_residual,
    rectangle_corners,
    rectangle_window,
    warp_images,
    warp_rectangles,
)

__all__ = [
    'adversarial_kl',
    'conv_to_one',
    'corners',
    'critic_loss',
    'draw_gaussian',
    'enclosing',
    'gate_information',
    'gaussian_kl',
    'information_gate',
    'information_of_power',
    'join_levels',
    'l2_residual',
    'moved',
    'nearest_anchor',
    'periodic_residual',
    'rectangle_corners',
    'rectangle_window',
    'resize',
    'scaled',
    'softplus_std',
    'split_levels',
    'standardized',
    'straight_through',
    'warp_images',
    'warp_rectangles',
]
