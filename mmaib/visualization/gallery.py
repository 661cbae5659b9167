"""The images of a report, worst first."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .work_dirs import SCORES_FILE, Group, Run, read_json

MEGABYTES = 10  # of pictures; the page has a third more as text
# what a gallery is sorted by, the lowest first
SCORES = {
    'base/F1': "boxes' F1",
    'base/IoU': 'mean IoU',
    'base/p_true': 'p(true class)',
    'auc': "map's AUC",
    'energy': 'energy inside',
    'pointing': 'pointing',
    'contrast': 'contrast',
    'bits_per_image': 'bits',
}


class Picture(NamedTuple):
    """A card of the gallery, its pictures as data URIs."""

    name: str
    run: str
    group: int
    scores: dict[str, float]
    small: str
    large: str


def data_uri(
    image: Image.Image,
    size: tuple[int, int],
    kind: str = 'jpeg',
    quality: int = 78,
) -> str:
    """A picture, no larger, as it stands in a page."""
    image.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/{kind};base64,{text}'


def pictures(
    groups: Sequence[Group], per_run: int, megabytes: float = MEGABYTES
) -> tuple[list[Picture], int]:
    """The gallery, worst first, and how many images did not fit."""
    waiting = []
    for number, group in enumerate(groups):
        for run in group.runs:
            label = group.label
            if len(group.runs) > 1:
                label += f', seed {run.seed}'
            for rank, (name, scores, *files) in enumerate(images_of(run)):
                waiting.append((rank, number, label, name, scores, files))
    # the worst of each run before the second worst of any
    waiting.sort(key=lambda item: item[:2])
    cards: list[Picture] = []
    room = megabytes * 1e6
    for rank, number, label, name, scores, (small, large) in waiting:
        if rank >= per_run or room <= 0:
            continue
        uris = []
        for path, width in ((small, 320), (large, 1500)):
            with Image.open(path) as image:
                size = width, image.height
                uris.append(data_uri(image.convert('RGB'), size))
        cards.append(Picture(name, label, number, scores, *uris))
        room -= sum(map(len, uris))
    cards.sort(key=lambda card: worst(card.scores))
    return cards, len(waiting) - len(cards)


def images_of(
    run: Run,
) -> list[tuple[str, dict[str, float], Path, Path]]:
    """Name, scores, overlay and all panels, worst first; of a run that was
    not looked at yet, what an AttentionVisHook drew while it trained."""
    found = [
        (name, scores, folder / f'{name}.overlay.jpg', folder / f'{name}.png')
        for folder in run.pictures
        for name, scores in read_json(folder / SCORES_FILE)
        .get('images', {})
        .items()
    ]
    found.sort(key=lambda item: worst(item[1]))
    return found or [(n, {}, p, p) for n, p in run.snapshots.items()]


def worst(scores: dict[str, float]) -> float:
    """What the gallery is sorted by at first."""
    return next((scores[name] for name in SCORES if name in scores), 0.0)
