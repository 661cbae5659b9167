"""Small data sets, written as their authors distribute them."""

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image
from scipy.io import savemat

PAGES = dict(
    SVHN='http://ufldl.stanford.edu/housenumbers/',
    STL10='https://cs.stanford.edu/~acoates/stl10/',
    CUBWithBoxes='https://www.vision.caltech.edu/datasets/cub_200_2011/',
    OxfordPetSplits='https://www.robots.ox.ac.uk/~vgg/data/pets/',
)
RESIZED = [
    dict(type='Resize', scale=(16, 8)),
    dict(type='ResizeEdge', scale=4, edge='short'),
    dict(type='PackInputs'),
]


def build(name, root, **fields):
    return DATASETS.build(
        dict(type=f'mmaib.{name}', data_root=str(root), **fields)
    )


def refused(name, root, match, error=ValueError, **fields):
    """The data set is not built, for a reason that names its folder and
    where to get it."""
    with pytest.raises(error, match=match) as caught:
        build(name, root, **fields)
    assert f"data_root='{root}'" in str(caught.value)
    assert PAGES[name] in str(caught.value)
    return str(caught.value)


def images(count, side, seed=0):
    """``(N, H, W, 3)``: no two of their rows, columns and channels agree."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def write_svhn(root, split, pixels, labels, **changed):
    content = dict(X=pixels.transpose(1, 2, 3, 0), y=np.uint8([labels]).T)
    path = root / f'{split}_32x32.mat'
    savemat(path, {**content, **changed}, do_compression=True)
    return path


def write_stl10(root, split, pixels, labels):
    """Byte by byte as the page says: one channel at a time, column by
    column."""
    content = bytearray()
    for image in pixels:
        for channel in range(3):
            for column in range(96):
                content += image[:, column, channel].tobytes()
    (root / f'{split}_X.bin').write_bytes(content)
    (root / f'{split}_y.bin').write_bytes(bytes(labels))


BIRDS = {
    # image id: name, label, trained on, box, height, width
    1: ('001.Albatross/a.jpg', 1, 1, '10.0 4.0 20.0 13.0', 30, 50),
    2: ('001.Albatross/b.jpg', 1, 0, '0.0 0.0 40.0 20.0', 20, 40),
    3: ('200.Yellowthroat/c.jpg', 200, 1, '5.0 2.0 36.0 99.0', 24, 40),
}
FILES = (
    'images.txt',
    'image_class_labels.txt',
    'train_test_split.txt',
    'bounding_boxes.txt',
)


def decoded(root, number):
    """BGR, as the base model loads it."""
    return np.asarray(Image.open(root / 'images' / BIRDS[number][0]))[
        ..., ::-1
    ]


def write_pets(root, counts):
    """So many images of each breed, as the official list names them."""
    (root / 'images').mkdir(parents=True)
    lines = [
        '#Image CLASS-ID SPECIES BREED ID',
        '#ID: 1:37 Class ids',
        '#SPECIES: 1:Cat 2:Dog',
    ]
    for label, count in enumerate(counts, 1):
        for number in range(count):
            name = f'Breed_{label}_{number}'
            pixels = images(1, 20, seed=label)[0]
            Image.fromarray(pixels).save(root / 'images' / f'{name}.jpg')
            lines.append(f'{name} {label} {1 + label % 2} {label}')
    (root / 'annotations').mkdir()
    (root / 'annotations' / 'list.txt').write_text('\n'.join(lines) + '\n')
