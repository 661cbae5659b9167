import io
import logging

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from PIL import Image

from mmaib.datasets import CheckFiles, check_files

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


def encoded(kind, pixels=PIXELS):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def sample(tmp_path):
    def write(content, mask=None):
        (tmp_path / 'image').write_bytes(content)
        results = dict(img_path=str(tmp_path / 'image'))
        if mask is not None:
            (tmp_path / 'mask').write_bytes(mask)
            results['seg_map_path'] = str(tmp_path / 'mask')
        return results

    return write


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'bmp', 'tiff', 'webp'])
def test_whole_images_pass(sample, kind):
    results = sample(encoded(kind), encoded('png', PIXELS[..., 0]))
    assert CheckFiles()(results) is results
    # a tail of another program's, and the smallest of images
    CheckFiles()(sample(encoded(kind) + b'\0' * 64))
    CheckFiles()(sample(encoded(kind, PIXELS[:1, :1])))


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'bmp', 'tiff', 'webp'])
@pytest.mark.parametrize('part', [0.3, 0.6, 0.9])
def test_images_that_were_cut_off(sample, kind, part):
    content = encoded(kind)
    with pytest.raises(ValueError, match=r"/image' is (broken|no image)"):
        CheckFiles()(sample(content[: int(len(content) * part)]))


def test_files_that_are_no_images(sample, tmp_path):
    with pytest.raises(ValueError, match="/image' is empty"):
        CheckFiles()(sample(b''))
    with pytest.raises(ValueError, match=r"no image: 9 bytes .*'not an i'"):
        CheckFiles()(sample(b'not an image'[:9]))
    with pytest.raises(
        ValueError, match=r"/none' cannot be read with backend_args=None"
    ):
        CheckFiles()(dict(img_path=str(tmp_path / 'none')))


def test_a_mask_of_another_size(sample):
    mask = encoded('png', PIXELS[:20, :20, 0])
    with pytest.raises(ValueError, match=r"/mask' has \(20, 20\).*\(40, 30\)"):
        CheckFiles()(sample(encoded('jpeg'), mask))
    with pytest.raises(ValueError, match="/mask' is broken or cut off"):
        CheckFiles()(sample(encoded('jpeg'), encoded('png')[:-20]))


def test_images_that_lie_on_their_side(sample):
    """The hosts turn the image by its EXIF, and not the mask."""
    exif = Image.Exif()
    exif[0x112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, 'jpeg', exif=exif)
    turned = np.rot90(PIXELS[..., 0]).copy()
    results = sample(buffer.getvalue(), encoded('png', turned))
    assert CheckFiles()(results) is results
    loaded = LoadImageFromFile()(results)['img']
    assert loaded.shape[:2] == turned.shape
    with pytest.raises(ValueError, match=r'\(40, 30\).*\(30, 40\)'):
        CheckFiles()(sample(buffer.getvalue(), encoded('png', PIXELS[..., 0])))


def test_what_the_host_loads_passes(sample, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    mask = encoded('png', PIXELS[..., 0])
    results = sample(encoded('png'), mask)
    assert CheckFiles()(results) is results
    monkeypatch.undo()
    done, radiance = cv2.imencode('.hdr', PIXELS.astype(np.float32))
    assert done
    CheckFiles()(sample(radiance.tobytes()))
    # back ends that hand out views of their memory
    monkeypatch.setattr(
        check_files.fileio, 'get', lambda path, args: memoryview(mask)
    )
    CheckFiles()(dict(img_path='remote'))


class Images(BaseDataset):
    def load_data_list(self):
        names = ('image', 'empty', 'cut')
        return [dict(img_path=f'{self.data_root}/{name}') for name in names]


def test_skipping_takes_another_image_and_counts(
    sample, tmp_path, monkeypatch
):
    sample(encoded('jpeg'))
    files = [tmp_path / name for name in ('image', 'empty', 'cut')]
    files[1].write_bytes(b'')
    files[2].write_bytes(encoded('jpeg')[:-500])
    said = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, 'log', lambda level, text: said.append((level, text))
    )
    check = CheckFiles(broken='skip')
    images = Images(data_root=str(tmp_path), pipeline=[check])
    for i in range(3):
        assert images[i]['img_path'] == str(files[0])
    assert check.skipped == {str(files[1]), str(files[2])}
    assert all(level == logging.WARNING for level, _ in said)
    assert any('2 broken so far' in text for _, text in said)
    images.test_mode = True
    with pytest.raises(Exception, match='Test time pipline'):
        images[1]


def test_an_unknown_way_to_treat_them():
    with pytest.raises(ValueError, match=r"broken must be one of .*'fix'"):
        CheckFiles(broken='fix')
