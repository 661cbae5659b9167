"""A sample classifier from training to pictures, through our tools and
mmpretrain's own."""

from pathlib import Path
from tempfile import TemporaryDirectory

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from PIL import Image
from support import CONFIGS, REPOSITORY
from support import classification as cls

from mmaib.layers import capture_attention

OUR_TOOLS = REPOSITORY / 'tools'
MMPRETRAIN_TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
CONFIG = (
    CONFIGS
    / 'sample'
    / 'cifar10-subset'
    / 'aib-qt-literal_vgg16-x0.125_1xb128-16e_cifar10-subset.py'
)  # fmt: skip
SHORT = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=8',
    'default_hooks.logger.interval=1',
]
CLASSES = ('airplane', 'bird', 'cat')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Folders of files, each class a colour."""
    root = tmp_path_factory.mktemp('data')
    noise = np.random.default_rng(0)
    for split, count in {'train': 8, 'test': 2}.items():
        for i, name in enumerate(CLASSES):
            folder = root / 'cifar10_subset' / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 80, (32, 32, 3), np.uint8)
                pixels[..., i] += 150
                Image.fromarray(pixels).save(folder / f'{name}{number}.jpg')
    return root


def map_in_the_base_model(checkpoint, images):
    """The map of the first bird in a Runner's own test."""
    cfg = Config.fromfile(CONFIG)
    folder = images / 'cifar10_subset'
    cfg.test_dataloader.dataset.data_root = str(folder)
    cfg.merge_from_dict(dict(load_from=str(checkpoint), launcher='none'))
    with TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
    dataset = runner.test_dataloader.dataset
    path = str(folder / 'test' / 'bird' / 'bird0.jpg')
    data = pseudo_collate([dataset.pipeline(dict(img_path=path))])
    runner.model.eval()
    with capture_attention(runner.model) as maps, torch.no_grad():
        runner.model.test_step(data)
    return maps[0].mean[0, 0].numpy()


@pytest.mark.parametrize('tools', ['ours', 'mmpretrain'])
def test_from_training_to_pictures(run, scalars, images, tmp_path, tools):
    folder = {'ours': OUR_TOOLS, 'mmpretrain': MMPRETRAIN_TOOLS}[tools]
    work_dir, config = tmp_path / 'work', tmp_path / 'with_pictures.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        "custom_hooks = [dict(type='mmaib.AttentionVisHook', interval=1)]\n"
    )
    run(
        folder / 'train.py', config, '--work-dir', work_dir,
        '--cfg-options', *SHORT, data_root=images,
    )  # fmt: skip
    entries = scalars(work_dir)
    steps = [entry for entry in entries if 'loss' in entry]
    assert len(steps) == 3
    for step in steps:
        parts = [v for k, v in step.items() if 'loss_' in k]
        assert len(parts) == 4
        assert step['loss'] == pytest.approx(sum(parts), rel=1e-3)
        assert np.isfinite(step['kl_nats'])
    assert 0 <= entries[-1]['accuracy/top1'] <= 100
    pictures = list(work_dir.glob('*/vis_data/vis_image/attention_*.png'))
    assert pictures
    if tools == 'mmpretrain':
        return
    checkpoint = work_dir / 'epoch_1.pth'
    run(
        folder / 'test.py', CONFIG, checkpoint, '--show-dir',
        tmp_path / 'shown', '--work-dir', tmp_path / 'test', data_root=images,
    )  # fmt: skip
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 6
    run(
        'mmaib', 'visualize', CONFIG, checkpoint,
        images / 'cifar10_subset' / 'test' / 'bird', '--out',
        tmp_path / 'maps', data_root=images,
    )  # fmt: skip
    mean = np.load(tmp_path / 'maps' / 'bird0.level0.npy')
    quantized = np.load(tmp_path / 'maps' / 'bird0.level0.quantized.npy')
    assert mean.shape == quantized.shape == (16, 16)
    assert (
        np.abs(mean - map_in_the_base_model(checkpoint, images)).max() < 1e-5
    )
    assert len(np.unique(quantized)) <= 20
    assert (tmp_path / 'maps' / 'bird0.png').stat().st_size > 10_000


def test_pictures_of_a_pipeline_without_a_loader(run, images, tmp_path):
    """CIFAR's and SVHN's data sets give arrays."""
    config = tmp_path / 'arrays.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        'test_dataloader = dict(\n'
        "    dataset=dict(pipeline=[dict(type='PackInputs')]))\n"
        'data_preprocessor = dict(to_rgb=False)\n'
    )
    classifier = cls.build(Config.fromfile(config))
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'c.pth')
    run(
        'mmaib', 'visualize', config,
        tmp_path / 'c.pth', images / 'cifar10_subset' / 'test' / 'cat',
        '--out', tmp_path / 'maps', data_root=images,
    )  # fmt: skip
    assert (tmp_path / 'maps' / 'cat0.png').stat().st_size > 10_000


def test_missing_folders_are_named_before_training(run, images, tmp_path):
    out = run(
        OUR_TOOLS / 'train.py', CONFIG, '--work-dir', tmp_path,
        '--cfg-options', 'train_dataloader.dataset.data_prefix=nowhere',
        data_root=images, check=False,
    )  # fmt: skip
    assert out.returncode
    assert 'train_dataloader.dataset.data_prefix: ' in out
    assert 'nowhere' in out


@pytest.mark.parametrize(
    ('config', 'page'),
    [
        ('vgg16/vgg16-aib_1xb128-200e_svhn.py', 'housenumbers'),
        ('wrn50-2/wrn50-2-aib_1xb16-200e_cub-224x224.py', 'cub_200_2011'),
    ],
)
def test_missing_files_are_named_with_their_page(run, tmp_path, config, page):
    for name in ('svhn', 'CUB_200_2011'):
        (tmp_path / 'data' / name).mkdir(parents=True)
    out = run(
        OUR_TOOLS / 'train.py', CONFIGS / 'classification' / config,
        '--work-dir', tmp_path / 'work', '--cfg-options',
        'model.backbone.init_cfg=None',
        data_root=tmp_path / 'data', check=False,
    )  # fmt: skip
    assert out.returncode
    assert page in out
    assert 'does not exist' in out
