"""A page on which predictions are clicked to see what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from matplotlib import colormaps
from PIL import Image

from mmaib.functional import corners, enclosing
from mmaib.visualization.gallery import data_uri

from .explain import Explanation

LARGEST = 800  # pixels of a picture's longer side


def heat(bits: np.ndarray) -> np.ndarray:
    """A map as ``(H, W, 4)`` of uint8 in RGBA, clear where nothing passes."""
    level = bits / max(float(bits.max()), 1e-12)
    colours = colormaps['inferno'](level)
    colours[..., 3] = 0.15 + 0.75 * level
    return (colours * 255).round().astype(np.uint8)


def picture(image: np.ndarray, found: Explanation) -> np.ndarray:
    """Map and box over an image, RGB."""
    colours = heat(found.bits).astype(float)
    alpha = colours[..., 3:] / 255
    mixed = image * (1 - alpha) + colours[..., :3] * alpha
    drawn = np.ascontiguousarray(mixed.round().astype(np.uint8))
    if found.box is not None:
        points = corners(torch.tensor(found.box)).round().int().numpy()
        cv2.polylines(drawn, [points], True, (255, 212, 0), 2)
    return drawn


def about(found: Explanation, missed: bool) -> list[tuple[str, str]]:
    """What is said beside a prediction."""
    mirrored = '-' if found.mirrored is None else f'{found.mirrored:.3f}'
    return [
        ('probability', f'{found.score:.3f}'),
        (
            'must be shut' if missed else 'needs',
            f'{found.bits.sum():.0f} bits',
        ),
        ('with that alone', f'{found.kept:.3f}'),
        ('without it', f'{found.without:.3f}'),
        ('with it mirrored', mirrored),
    ]


def _uri(image: np.ndarray, kind: str) -> str:
    return data_uri(Image.fromarray(image), (LARGEST, LARGEST), kind, 95)


def _place(found: Explanation, image: np.ndarray) -> str:
    """A box's style, in percent of the picture."""
    if found.box is None:
        return ''
    height, width = image.shape[:2]
    left, top, right, bottom = enclosing(torch.tensor(found.box)).tolist()
    return (
        f'left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;'
        f'width:{100 * (right - left) / width:.2f}%;'
        f'height:{100 * (bottom - top) / height:.2f}%'
    )


def page(
    images: Mapping[str, tuple[np.ndarray, Sequence[Explanation]]],
    title: str,
    command: str = '',
    missed: bool = False,
) -> str:
    """HTML in one file.

    Args:
        images: by name, in RGB, each with its explanations.
        title: of the page.
        command: that made it.
        missed: whether maps are of what speaks against a missed object.
    """
    shown: list[dict[str, Any]] = []
    for name, (image, explanations) in images.items():
        found = [
            dict(
                name=one.name,
                score=f'{one.score:.2f}',
                uri=_uri(heat(one.bits), 'png'),
                place=_place(one, image),
                about=about(one, missed),
            )
            for one in explanations
        ]
        shown.append(dict(name=name, uri=_uri(image, 'jpeg'), found=found))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    return environment.get_template('page.html').render(
        title=title, images=shown, command=command
    )
