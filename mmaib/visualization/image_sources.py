"""Where images to look at come from: files, a folder, a test set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from mmaib.preflight.fields import configs_with
from mmaib.preflight.samples import AS_STORED
from mmaib.registry import type_name

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')


def test_pipeline(cfg: Config) -> Compose:
    """The config's test pipeline without annotations; of several data sets
    the first one's.

    Raises:
        FileNotFoundError: if it has none.
        ValueError: if it makes several images of one.
    """
    loader = cfg.get('test_dataloader')
    found = configs_with('pipeline', loader, 'test_dataloader')
    transforms = next((dataset['pipeline'] for _, dataset in found), None)
    if transforms is None:
        raise FileNotFoundError(
            'test_dataloader: no data set in it has a pipeline, by which '
            f'images are loaded; it is {loader!r}'
        )
    if any('TestTimeAug' in type_name(t['type']) for t in transforms):
        raise ValueError(
            'test_dataloader: its pipeline has TestTimeAug, which makes '
            'several images of one; give it the plain test pipeline'
        )
    return Compose(
        [t for t in transforms if 'Annotation' not in type_name(t['type'])]
    )


def images(source: Path) -> list[Path]:
    """An image, or the images of a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(p for p in source.glob('*') if p.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f'{source}: neither an image nor a folder of')
    return found


def loads_files(transform: Any) -> bool:
    """Such as LoadImageFromFile and LoadSingleRSImageFromFile."""
    return 'Load' in type(transform).__name__


def load(pipeline: Compose, path: Path) -> Any:
    """An image through a pipeline that loads files, or, as those of CIFAR
    and SVHN, is given arrays.

    Raises:
        ValueError: if it cannot be loaded, naming it.
    """
    try:
        if any(map(loads_files, pipeline.transforms)):
            return pipeline(dict(img_path=str(path), img_id=0))
        return load_array(
            pipeline, mmcv.imread(str(path), channel_order='rgb')
        )
    except Exception as error:  # of whatever loads it
        why = f'{path} cannot be loaded: {error or type(error)}'
        raise ValueError(why) from error


def load_array(pipeline: Compose, image: np.ndarray) -> Any:
    """An image through the transforms of a pipeline that load no file."""
    transforms = [t for t in pipeline.transforms if not loads_files(t)]
    size = image.shape[:2]
    given = dict(img=image, img_shape=size, ori_shape=size)
    return Compose(transforms)(given)


def as_loaded(pipeline: Compose, path: str | Path) -> np.ndarray:
    """The picture ``(H, W, 3)`` in RGB, turned by its EXIF where the
    pipeline's loader turns it."""
    kinds = [getattr(t, 'color_type', '') for t in pipeline.transforms]
    as_stored = any(kind.endswith(AS_STORED) for kind in kinds)
    flag = 'color_ignore_orientation' if as_stored else 'color'
    return mmcv.imread(str(path), flag, 'rgb')


Images = tuple[int, Iterator[tuple[str, Any]]]  # paths and data


def of_files(pipeline: Compose, sources: Sequence[Path]) -> Images:
    """How many images there are, and each one's path and data; one that cannot
    be loaded is passed over, by name.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = [path for source in sources for path in images(source)]

    def read() -> Iterator[tuple[str, Any]]:
        for path in paths:
            try:
                data = load(pipeline, path)
            except ValueError as error:
                print(f'\nskipped: {error}')
                continue
            yield str(path), data

    return len(paths), read()


def of_test_set(cfg: Config) -> Images:
    """The same of the config's test images, with their ground truth.

    Raises:
        FileNotFoundError: if it has none.
    """
    if not cfg.get('test_dataloader'):
        raise FileNotFoundError(
            f'test_dataloader is {cfg.get("test_dataloader")!r}: set it, or '
            'name images to look at'
        )
    dataset = DATASETS.build(cfg.test_dataloader.dataset)

    def read() -> Iterator[tuple[str, Any]]:
        for number in range(len(dataset)):
            data = dataset[number]
            path = data['data_samples'].get('img_path')
            yield path or f'sample_{number:05d}', data

    return len(dataset), read()
