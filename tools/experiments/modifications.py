"""Images changed as in Section 4.3 of [AIB], in ways that need not change
what a model answers: a part hidden, frequencies left out.

Sizes and radii are those of images of 32 pixels, as in the paper; on larger
ones both grow with the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmaib.functional import resize

SIDE = 32  # of CIFAR's images
BLOCKS = (4, 8, 12, 16)
HIGH, LOW = 4, 12


def hidden(
    image: Tensor,
    size: int,
    generator: torch.Generator,
    patch: Tensor | None = None,
) -> Tensor:
    """A block at a random place of an image ``(C, H, W)``, uint8, is painted
    over.

    Args:
        image: the image.
        size: p, side of the block on an image of 32 pixels.
        generator: of the place and the colour.
        patch: image of another data set, uint8, resized to the block; None
            for a random colour.
    """
    channels, *sides = image.shape
    block = [max(round(size * side / SIDE), 1) for side in sides]
    top, left = (
        int(torch.randint(side - b + 1, (), generator=generator))
        for side, b in zip(sides, block)
    )
    if patch is None:
        fill = torch.randint(256, (channels, 1, 1), generator=generator)
    else:
        fill = resize(patch[None].float(), tuple(block))[0].round()
    out = image.clone()
    out[:, top : top + block[0], left : left + block[1]] = fill.to(out)
    return out


def frequency_radius(height: int, width: int) -> Tensor:
    """Distance of each coefficient of a shifted Fourier transform from the
    constant, in those of an image of 32 pixels, ``(H, W)``."""
    rows, columns = (
        (torch.arange(side) - side // 2) * SIDE / side
        for side in (height, width)
    )
    return (rows[:, None].square() + columns.square()).sqrt()


def split_frequencies(image: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Low frequencies of ``(C, H, W)``, below a radius r on an image of 32
    pixels, and high ones, from it on; the two add up to the image."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(image.double()), dim=(-2, -1))
    below = frequency_radius(*image.shape[-2:]) < radius
    low, high = (
        torch.fft.ifft2(torch.fft.ifftshift(part, dim=(-2, -1))).real.float()
        for part in (spectrum * below, spectrum * ~below)
    )
    return low, high


def stretched(image: Tensor) -> Tensor:
    """Each channel of ``(C, H, W)`` from its lowest value at 0 to its highest
    at 255, uint8; a constant one is 0."""
    low, high = (
        f(image, dim=(-2, -1), keepdim=True) for f in (torch.amin, torch.amax)
    )
    scaled = (image - low) / (high - low).clamp(min=1e-6) * 255
    return scaled.round().to(torch.uint8)


def modified(
    image: Tensor, generator: torch.Generator, patches: Sequence[Tensor] = ()
) -> dict[str, Tensor]:
    """Every modification of an image ``(C, H, W)``, uint8, by its name in
    Table 8: ``'color p=4'``, ..., ``'patch p=16'``, ``'r > 4'``, ``'r < 12'``.

    Args:
        image: the image.
        generator: of places, colours and the choice among ``patches``.
        patches: images of another data set; without them ``'patch ...'`` is
            left out.
    """
    found = {
        f'color p={size}': hidden(image, size, generator) for size in BLOCKS
    }
    for size in BLOCKS if patches else ():
        number = int(torch.randint(len(patches), (), generator=generator))
        found[f'patch p={size}'] = hidden(
            image, size, generator, patches[number]
        )
    found[f'r > {HIGH}'] = stretched(split_frequencies(image, HIGH)[1])
    found[f'r < {LOW}'] = stretched(split_frequencies(image, LOW)[0])
    return found
