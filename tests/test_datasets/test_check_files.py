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
    """The base libraries turn the image by its EXIF, and not the mask."""
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


def test_what_the_base_model_loads_passes(sample, monkeypatch):
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


def of_mmseg(results, **fields):
    return dict(results, seg_fields=[], label_map=None, **fields)


LABELS = np.zeros((30, 40), np.uint8)
LABELS[3:9, 4:8] = 2


def test_a_mask_of_several_channels(sample):
    for kind in ('RGB', 'RGBA', 'LA'):
        buffer = io.BytesIO()
        Image.fromarray(LABELS).convert(kind).save(buffer, 'png')
        results = sample(encoded('png'), buffer.getvalue())
        with pytest.raises(ValueError, match="/mask' has the channels .*A?"):
            CheckFiles()(of_mmseg(results))
        assert CheckFiles()(results)  # panoptic segments, by their colour
    palette = Image.fromarray(LABELS).convert('P')
    palette.putdata(LABELS.ravel().tolist())
    buffer = io.BytesIO()
    palette.save(buffer, 'png')
    check = CheckFiles(num_classes=3)
    check(of_mmseg(sample(encoded('png'), buffer.getvalue())))
    assert check.found == {0, 2}


def test_a_mask_of_more_than_8_bits(sample):
    deep = LABELS.astype(np.uint16)
    check = CheckFiles(num_classes=3)
    check(of_mmseg(sample(encoded('png'), encoded('png', deep))))
    deep[0, 0] = 258  # would be 2
    results = of_mmseg(sample(encoded('png'), encoded('png', deep)))
    with pytest.raises(ValueError, match="/mask' has labels from 0 to 258"):
        CheckFiles()(results)


def test_labels_that_no_class_has(sample):
    mask = LABELS.copy()
    mask[0, :5] = 255
    results = sample(encoded('png'), encoded('png', mask))
    CheckFiles(num_classes=3)(of_mmseg(results))
    CheckFiles()(of_mmseg(results))
    with pytest.raises(
        ValueError, match=r"/mask' .*\[2\] in 24 pixels.* 0 to 1,.*if 0 is no"
    ):
        CheckFiles(num_classes=2)(of_mmseg(results))
    check = CheckFiles(num_classes=2)
    check(of_mmseg(results, reduce_zero_label=True))
    assert check.found == {1, 255}
    with pytest.raises(ValueError, match=r'\[2\].*reduce_zero_label=True is'):
        CheckFiles(num_classes=1)(of_mmseg(results, reduce_zero_label=True))
    renamed = dict(of_mmseg(results), label_map={0: 1, 2: 0})
    CheckFiles(num_classes=2)(renamed)


def test_the_labels_are_those_that_mmseg_makes(sample):
    from mmseg.datasets.transforms import LoadAnnotations

    mask = np.random.default_rng(1).choice([0, 1, 5, 254, 255], (30, 40))
    results = sample(encoded('png'), encoded('png', mask.astype(np.uint8)))
    for reduced in (False, True):
        for label_map in (None, {0: 7, 5: 255, 253: 3}):
            fields = dict(reduce_zero_label=reduced)
            seen = dict(of_mmseg(results, **fields), label_map=label_map)
            check = CheckFiles(num_classes=256)
            check(dict(seen))
            loaded = LoadAnnotations(reduce_zero_label=reduced)(dict(seen))
            assert check.found == {*np.unique(loaded['gt_seg_map']).tolist()}


def test_the_size_that_a_coco_file_lists(sample):
    """A photograph that lies on its side, listed as it is stored."""
    exif = Image.Exif()
    exif[0x112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, 'jpeg', exif=exif)
    results = sample(buffer.getvalue())
    box = dict(bbox=[3, 4, 20, 20])
    listed = dict(results, width=40, height=30, instances=[box])
    with pytest.raises(ValueError, match=r'\(30, 40\).*\(40, 30\) .*EXIF'):
        CheckFiles()(listed)
    CheckFiles()(dict(listed, instances=[]))
    CheckFiles()(dict(listed, width=30, height=40))
    # a loader that does not turn it
    check = CheckFiles()
    check.turned = False
    check(listed)
    # made for larger images
    large = dict(sample(encoded('png')), width=80, height=60)
    CheckFiles()(dict(large, instances=[box]))
    far = dict(bbox=[3, 4, 70, 20])
    with pytest.raises(ValueError, match='1 of 2 boxes end outside'):
        CheckFiles()(dict(large, instances=[box, far]))
