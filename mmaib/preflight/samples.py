"""Images and masks of a data set, some of them opened."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset

from mmaib.datasets.check_files import CheckFiles

from .fields import warn

# images that are opened, and masks until a second class is found
IMAGES, MASKS = 32, 2000


def steps(dataset: BaseDataset, name: str) -> list[Any]:
    """Those of a pipeline whose types begin with a name."""
    return [
        step
        for step in dataset.pipeline.transforms
        if type(step).__name__.startswith(name)
    ]


def labels_of(head: Any) -> tuple[int, set[int]]:
    binary = getattr(head, 'out_channels', None) == 1
    num_classes = max(head.num_classes, 2 if binary else 0)
    return num_classes, {int(getattr(head, 'ignore_index', 255))}


# ends of the color_type of loaders that turn no image by its EXIF
AS_STORED = ('unchanged', 'ignore_orientation')


def check_sample(
    path: str, dataset: Any, heads: dict[str, Any], trains: bool
) -> None:
    """Open some images and masks."""
    # by its exact name: others read bands from several files, or volumes
    name = 'LoadImageFromFile'
    loads = [s for s in steps(dataset, name) if type(s).__name__ == name]
    loading = next(iter(loads), None)
    if not loading or loading.imdecode_backend == 'tifffile' or skips(dataset):
        return
    check = CheckFiles(backend_args=loading.backend_args)
    check.turned = (  # by its EXIF
        loading.imdecode_backend in ('cv2', 'pillow')
        and not loading.color_type.endswith(AS_STORED)
    )
    masks = [s for s in steps(dataset, 'LoadAnnotations') if s.with_seg]
    head = heads.get('model.decode_head')
    if masks and head is not None:
        check.num_classes, check.ignored = labels_of(head)
        check.ignored |= set() if trains else {255}
    wrong: list[str] = []
    read, total = 0, len(dataset)
    spread = (k * total // IMAGES for k in range(IMAGES))
    for i in dict.fromkeys([*spread, *range(min(total, MASKS))]):
        alone = len(check.found - check.ignored) == 1
        if read >= IMAGES and (wrong or not alone):
            break
        read += 1
        info = dataset.get_data_info(i)
        if not masks:
            info.pop('seg_map_path', None)
        try:
            check(info)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(
            f'{path}: {len(wrong)} of {read} images looked at, of {total}, '
            f'are wrong (first: {wrong[0]})'
        )
    _check_alone(path, check, read, total, trains)


def check_files(dataset: Any) -> list[CheckFiles]:
    steps = dataset.pipeline.transforms
    return [step for step in steps if isinstance(step, CheckFiles)]


def skips(dataset: Any) -> bool:
    """Whether another image is taken for one that does not load."""
    return any(step.broken == 'skip' for step in check_files(dataset))


def _check_alone(
    path: str, check: CheckFiles, read: int, total: int, trains: bool
) -> None:
    """Refuse masks of one class and what is ignored: another one may have
    been saved as that."""
    classes = check.found - check.ignored
    if (check.num_classes or 0) < 2 or not check.found or len(classes) > 1:
        return
    ignored = sorted(check.found & check.ignored)
    text = (
        f'{path}: {read} of {total} masks have the labels {sorted(classes)} '
        f'alone, of {check.num_classes} classes'
    )
    if ignored:
        text += (
            f', and {ignored}, which is ignored: if that is a class (a mask '
            'of 0 and 255), save it as its label; mind reduce_zero_label, '
            'which makes 0 ignored'
        )
        if trains and read == total:
            raise ValueError(text)
    warn(text)
