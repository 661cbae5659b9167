import pytest
import torch
from dataset_files import (
    RESIZED,
    build,
)
from mmengine.registry import TRANSFORMS
from support import new_python


def test_names_resolve_in_a_fresh_process():
    code = """
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
init_default_scope('mmpretrain')
for name in ('SVHN', 'STL10', 'CUBWithBoxes'):
    print(DATASETS.get(f'mmaib.{name}').__name__)
print(TRANSFORMS.get('mmaib.CropToBox').__name__)
"""
    out = new_python(code)
    names = ['SVHN', 'STL10', 'CUBWithBoxes', 'CropToBox']
    # the base model says things of its own
    assert out.stdout.split()[-4:] == names, out.stderr


@pytest.mark.parametrize('split', ['val', None, 3])
def test_no_such_split(tmp_path, split):
    for name in ('SVHN', 'STL10', 'CUBWithBoxes'):
        with pytest.raises(ValueError, match=r"split must be .*'train'"):
            build(name, tmp_path, split=split)


@pytest.mark.parametrize('name', ['SVHN', 'STL10'])
def test_arrays_through_the_base_models_transforms(name, svhn, stl10):
    """The base library's own data set of arrays gives the same."""
    (root, _), pixels = svhn, dict(SVHN=svhn, STL10=stl10)[name][1]
    fields = dict(split='train' if name == 'SVHN' else 'test')
    packed = build(name, root, pipeline=RESIZED, **fields)[1]
    assert packed['inputs'].shape == (3, 4, 8)
    assert packed['data_samples'].gt_label.tolist() == [1]
    results = dict(img=pixels[1].copy())
    for transform in RESIZED:
        results = TRANSFORMS.build(transform)(results)
    assert torch.equal(packed['inputs'], results['inputs'])
