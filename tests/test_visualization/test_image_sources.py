import mmcv
import numpy as np
from mmengine.dataset import Compose

from mmaib.visualization.image_sources import of_files


def test_images_of_files_and_folders(tmp_path):
    for name in ('a/2.png', 'a/1.jpg', 'b.jpg'):
        mmcv.imwrite(np.zeros((4, 5, 3), np.uint8), str(tmp_path / name))
    (tmp_path / 'a' / 'notes.txt').touch()
    count, found = of_files(Compose([]), [tmp_path / 'b.jpg', tmp_path / 'a'])
    assert count == 3
    read = [
        (path.rpartition('/')[2], data['img'].shape) for path, data in found
    ]
    assert read == [(name, (4, 5, 3)) for name in ('b.jpg', '1.jpg', '2.png')]
