"""Trees from the air: the sample data set, cut from two photographs.

The package ``deepforest`` (MIT) ships aerial photographs of Yellowstone with
the boxes of their trees. The larger one becomes overlapping training tiles,
the other, taken 13 km away, test tiles, both as COCO json.

    python -m mmaib.datasets.trees --out data/trees

Running it again checks every file and rewrites only what is missing or
damaged. Files of other names are left alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image

from mmaib.files import sha256_of

from . import checksummed

VERSION = 1
TILE = 256
# A tree cut by a tile's edge counts where more than this part of it shows.
MIN_VISIBLE = 0.4


class Photograph(NamedTuple):
    """A photograph of the package and how to tile it."""

    split: str
    stem: str
    stride: int
    sha256: str


PHOTOGRAPHS = (
    Photograph(
        'train',
        '2019_YELL_2_528000_4978000_image_crop2',
        128,
        'a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767',
    ),
    Photograph(
        'test',
        '2019_YELL_2_541000_4977000_image_crop',
        256,
        '178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131',
    ),
)


def package_data() -> Path:
    """Folder of the photographs.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    spec = find_spec('deepforest')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            'the photographs come with a package: '
            'pip install --no-deps deepforest==2.1.0'
        )
    return Path(spec.origin).parent / 'data'


def read_boxes(path: Path) -> list[list[float]]:
    """Boxes ``[x1, y1, x2, y2]`` of a VOC annotation."""
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    return [
        [float(box.findtext(side, '')) for side in sides]
        for box in ElementTree.parse(path).getroot().iter('bndbox')
    ]


def crop_boxes(
    boxes: list[list[float]], left: int, top: int
) -> list[list[float]]:
    """COCO boxes ``[x, y, w, h]`` of the trees that show in a tile."""
    shown = []
    for x1, y1, x2, y2 in boxes:
        x1c, x2c = max(x1 - left, 0), min(x2 - left, TILE)
        y1c, y2c = max(y1 - top, 0), min(y2 - top, TILE)
        width, height = x2c - x1c, y2c - y1c
        if width <= 0 or height <= 0:
            continue
        if width * height > MIN_VISIBLE * (x2 - x1) * (y2 - y1):
            shown.append([x1c, y1c, width, height])
    return shown


def tiles(photo: Photograph) -> Iterator[tuple[str, bytes, list]]:
    """Name, PNG bytes and boxes of each tile with at least one tree.

    Raises:
        ValueError: if the photograph is not the one this was written for.
    """
    path = package_data() / f'{photo.stem}.png'
    if (digest := sha256_of(path)) != photo.sha256:
        raise ValueError(
            f'{path} has sha256 {digest}, expected {photo.sha256}: '
            'pip install --no-deps --force-reinstall deepforest==2.1.0'
        )
    image = Image.open(path).convert('RGB')
    boxes = read_boxes(path.with_suffix('.xml'))
    for top in range(0, image.height - TILE + 1, photo.stride):
        for left in range(0, image.width - TILE + 1, photo.stride):
            shown = crop_boxes(boxes, left, top)
            if not shown:
                continue
            buffer = io.BytesIO()
            tile = image.crop((left, top, left + TILE, top + TILE))
            tile.save(buffer, 'png')
            yield f'{top:04d}_{left:04d}.png', buffer.getvalue(), shown


def files() -> Iterator[tuple[str, bytes]]:
    """Name and content of every tile and annotation file."""
    for photo in PHOTOGRAPHS:
        images: list[dict] = []
        annotations: list[dict] = []
        for name, content, boxes in tiles(photo):
            yield f'{photo.split}/{name}', content
            number = len(images) + 1
            images.append(
                dict(id=number, file_name=name, width=TILE, height=TILE)
            )
            annotations += [
                dict(
                    id=i, image_id=number, category_id=1, bbox=box,
                    area=box[2] * box[3], iscrowd=0,
                )
                for i, box in enumerate(boxes, len(annotations) + 1)
            ]  # fmt: skip
        coco = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=1, name='tree')],
        )
        yield f'annotations/{photo.split}.json', json.dumps(coco).encode()


def build(out: Path) -> bool:
    """Write the data set into ``out``; False if it was already there."""
    return checksummed.build(out, files(), VERSION)


def about(out: Path) -> Iterator[str]:
    for photo in PHOTOGRAPHS:
        file = out / 'annotations' / f'{photo.split}.json'
        counts = {k: len(v) for k, v in json.loads(file.read_text()).items()}
        yield (
            f'{out}/{photo.split}: {counts["images"]} tiles, '
            f'{counts["annotations"]} trees'
        )


if __name__ == '__main__':
    checksummed.command('trees', build, about)
