import pytest
from dataset_files import (
    BIRDS,
    FILES,
    images,
    write_stl10,
    write_svhn,
)
from mmengine.registry import init_default_scope
from PIL import Image


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def svhn(tmp_path):
    pixels = images(5, 32)
    write_svhn(tmp_path, 'train', pixels[:3], [10, 1, 9])
    write_svhn(tmp_path, 'extra', pixels[3:], [2, 10])
    return tmp_path, pixels


@pytest.fixture
def stl10(tmp_path):
    pixels = images(10, 96)
    write_stl10(tmp_path, 'test', pixels, range(1, 11))
    return tmp_path, pixels


@pytest.fixture
def cub(tmp_path):
    for number, bird in BIRDS.items():
        path = tmp_path / 'images' / bird[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        side = max(bird[4:])
        pixels = images(1, side, seed=number)[0, : bird[4], : bird[5]]
        Image.fromarray(pixels).save(path)
    for column, name in enumerate(FILES):
        lines = [f'{number} {bird[column]}' for number, bird in BIRDS.items()]
        (tmp_path / name).write_text('\n'.join(lines) + '\n')
    return tmp_path
