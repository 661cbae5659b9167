"""`mmaib explain` and `mmaib.explain` from a config and a checkpoint to
pictures, numbers and the page."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets.categories import CIFAR10_CATEGORIES as CIFAR
from PIL import Image
from support import classification as cls
from support import detection as det

import mmaib
from mmaib.cli import explain as cli_explain
from mmaib.cli.loading import load_model
from mmaib.cli.main import main
from mmaib.explanations import Settings
from mmaib.explanations.baselines import BASELINES
from mmaib.explanations.explain import data_of
from mmaib.explanations.targets import class_names

SIZE = (96, 128)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A small detector's config, checkpoint, and two photographs."""
    folder = tmp_path_factory.mktemp('model')
    cfg = det.shrink(det.plain_config())
    cfg.test_dataloader.dataset.pipeline[1].scale = (2 * SIZE[1], 2 * SIZE[0])
    cfg.dump(folder / 'small.py')
    torch.manual_seed(0)
    model = det.build(cfg)
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd', 'e')))
    torch.save(
        dict(state_dict=model.state_dict(), meta=meta), folder / 'small.pth'
    )
    rng = np.random.default_rng(0)
    for name in ('one', 'two'):
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{name}.png'), image)
    return folder


def explain(folder, *words):
    return main(
        [
            'explain', str(folder / 'small.py'), str(folder / 'small.pth'),
            *map(str, words), '--device', 'cpu',
        ]
    )  # fmt: skip


def test_pictures_numbers_and_a_page(trained, tmp_path):
    out = tmp_path / 'out'
    assert not explain(
        trained, trained / 'one.png', trained / 'two.png', '--out', out,
        '--score-thr', 0, '--max-explained', 2, '--steps', 2,
    )  # fmt: skip
    said = json.loads((out / 'explained.json').read_text())
    assert said['at'] == 'neck'
    assert len(said['explanations']) == 4
    for one in said['explanations']:
        assert one['name'] in 'abcde'
        left, top, right, bottom = one['box']  # of the original image
        assert 0 <= left < right <= SIZE[1]
        assert 0 <= top < bottom <= SIZE[0]
        assert one['bits'] > 0
    names = {p.name for p in out.glob('*.png')}
    assert names == {f'{n}.{k}.png' for n in ('one', 'two') for k in (0, 1)}
    assert cv2.imread(str(out / 'one.0.png')).shape == (*SIZE, 3)
    page = (out / 'explained.html').read_text()
    assert page.count('data-image>') == 2
    assert page.count('style="left:') == 4
    assert page.count('data-map="data:image/png') == 4


def test_python_says_the_same_as_the_command(trained, tmp_path):
    from mmdet.apis import init_detector

    out = tmp_path / 'out'
    explain(
        trained, trained / 'one.png', '--out', out, '--score-thr', 0,
        '--detection', 1, '--steps', 2,
    )  # fmt: skip
    (said,) = json.loads((out / 'explained.json').read_text())['explanations']
    model = init_detector(
        Config.fromfile(trained / 'small.py'), str(trained / 'small.pth'),
        device='cpu',
    )  # fmt: skip
    (own,) = mmaib.explain(
        model, trained / 'one.png', score_thr=0, detection=1,
        settings=Settings(steps=2),
    )  # fmt: skip
    assert own.bits.shape == SIZE
    assert own.bits.sum() == pytest.approx(said['bits'], rel=1e-4)
    assert own.box == pytest.approx(said['box'])
    image = cv2.imread(str(trained / 'one.png'))
    (array,) = mmaib.explain(
        model, image, score_thr=0, detection=1, settings=Settings(steps=2)
    )
    assert np.allclose(array.bits, own.bits)


def test_another_methods_map_beside_ours(trained, tmp_path, capsys):
    words = trained / 'one.png', '--score-thr', 0, '--max-explained', 1
    for name in ('odam', 'box'):
        out = tmp_path / name
        assert not explain(trained, *words, '--out', out, '--baseline', name)
        said = json.loads((out / 'explained.json').read_text())
        assert said['settings']['start'] == name
        assert said['settings']['steps'] == 0
        assert said['explanations'][0]['bits'] > 0
    with pytest.raises(SystemExit):
        main(['explain', '--help'])
    help_ = ' '.join(capsys.readouterr().out.split())
    named = re.search(r'openness: ((?:[\w-]+, )+[\w-]+)', help_)[1]
    assert {*named.split(', ')} == {*BASELINES}


def test_what_is_done_is_kept_and_a_broken_image_is_skipped(
    trained, tmp_path, capsys, monkeypatch
):
    broken, out = tmp_path / 'broken.png', tmp_path / 'out'
    broken.write_bytes(b'png?')
    words = '--score-thr', 0, '--max-explained', 1, '--baseline', 'box'
    images = broken, trained / 'one.png', broken, trained / 'two.png'
    explained = cli_explain.explanation_of

    def once(*args, **more):
        monkeypatch.setattr(cli_explain, 'explanation_of', interrupted)
        return explained(*args, **more)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_explain, 'explanation_of', once)
    with pytest.raises(KeyboardInterrupt):
        explain(trained, *images, '--out', out, *words)
    assert capsys.readouterr().out.count('broken.png cannot be loaded') == 2
    said = json.loads((out / 'explained.json').read_text())
    assert [one['image'] for one in said['explanations']] == [str(images[1])]
    assert 'data-image>' in (out / 'explained.html').read_text()
    assert explain(trained, broken, '--out', tmp_path / 'no', *words) == 2
    assert not (tmp_path / 'no').exists()


def test_a_missed_object(trained, tmp_path):
    assert not explain(
        trained, trained / 'one.png', '--out', tmp_path / 'out', '--missed',
        10, 10, 60, 50, '--as', 'd', '--steps', 2,
    )  # fmt: skip
    text = (tmp_path / 'out' / 'explained.html').read_text()
    assert 'must be shut' in text


def test_an_image_without_the_prediction_is_skipped(trained, tmp_path, capsys):
    image = cv2.imread(str(trained / 'one.png'))
    cv2.imwrite(str(tmp_path / 'cut.png'), image[:48, :64])
    given = tmp_path / 'cut.png', trained / 'one.png'
    missed = '--missed', 70, 50, 100, 90, '--as', 'd', '--steps', 2
    assert not explain(trained, *given, '--out', tmp_path / 'out', *missed)
    said = capsys.readouterr().out
    assert f'skipped: {given[0]}: --missed' in said
    written = json.loads((tmp_path / 'out' / 'explained.json').read_text())
    (one,) = written['explanations']
    assert one['image'] == str(given[1])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--class', 'z'], "one.png: class 'z': the model has a, b, c, d, e"),
        (['--missed', 1, 2, 3, 4], '--missed X1 Y1 X2 Y2 and --as NAME go'),
        (['--at', 'nekc'], "at='nekc': FasterRCNN has no such module"),
        (['--score-thr', 1.1], 'no detection with a score of at least 1.1'),
        (['--baseline', 'gradcam'], "--baseline must be one of ['box', 'ce"),
        (['--baseline', 'box', '--steps', 3], '--baseline: it takes no'),
        (['--baseline', 'box', '--beta', 3], '--baseline: it takes no'),
        (
            ['--missed', 1, 2, 3, 4, '--as', 'a', '--detection', 0],
            '--missed: its class is --as',
        ),
        (['--against', 'b', '--score-thr', 0], '--against: FasterRCNN is a'),
        (
            [
                '--cfg-options',
                'test_dataloader.dataset.pipeline.1.type=TestTimeAug',
            ],
            'its pipeline has TestTimeAug',
        ),
    ],
)
def test_refusals_before_work(trained, tmp_path, capsys, words, message):
    out = tmp_path / 'out'
    assert explain(trained, trained / 'one.png', '--out', out, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('mmaib explain: ')
    assert message in lines[-1]
    assert not out.exists()


def test_nothing_is_written_over(trained, tmp_path, capsys):
    kept = tmp_path / 'explained.json'
    kept.write_text('mine')
    assert explain(trained, trained / 'one.png', '--out', tmp_path) == 2
    assert kept.read_text() == 'mine'
    assert 'not empty' in capsys.readouterr().err
    missing = trained / 'three.png'
    assert explain(trained, missing, '--out', tmp_path / 'new') == 2
    assert 'three.png' in capsys.readouterr().err


@pytest.mark.parametrize('kind', ['color', 'color_ignore_orientation'])
def test_a_picture_is_turned_as_the_loader_turns_it(trained, tmp_path, kind):
    path, out = tmp_path / 'turned.jpg', tmp_path / 'out'
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(trained / 'one.png').save(path, exif=exif)
    options = f'test_dataloader.dataset.pipeline.0.color_type={kind}'
    assert not explain(
        trained, path, '--out', out, '--score-thr', 0, '--steps', 1,
        '--max-explained', 1, '--cfg-options', options,
    )  # fmt: skip
    size = SIZE if kind != 'color' else SIZE[::-1]
    assert cv2.imread(str(out / 'turned.0.png')).shape == (*size, 3)


def test_statistics_of_no_image(trained, tmp_path, capsys):
    (tmp_path / 'broken.png').write_bytes(b'png?')
    words = '--score-thr', 0, '--statistics', tmp_path, '--out'
    assert explain(trained, trained / 'one.png', *words, tmp_path / 'out') == 2
    assert 'none of the images in it can be' in capsys.readouterr().err


def test_names_in_a_checkpoint_of_old(trained, tmp_path):
    cfg = Config.fromfile(trained / 'small.py')
    saved = torch.load(trained / 'small.pth')
    for meta, names in ((dict(CLASSES=('a',)), ['a']), (None, [])):
        torch.save({**saved, 'meta': meta}, tmp_path / 'old.pth')
        model = load_model(cfg, tmp_path / 'old.pth', torch.device('cpu'))
        assert class_names(model) == names


def classifier(*pipeline):
    """A small one, as mmpretrain's own function gives it."""
    from mmpretrain import get_model

    steps = [*pipeline, dict(type='PackInputs')]
    data = dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
    return get_model(
        Config(
            dict(
                default_scope='mmpretrain',
                model=cls.RESNET,
                data_preprocessor=dict(num_classes=10, **data),
                test_dataloader=dict(
                    dataset=dict(type='CIFAR10', pipeline=steps)
                ),
            )
        )
    )


def test_what_a_classifier_does_not_see_has_no_bits(trained):
    load = dict(type='LoadImageFromFile')
    settings = Settings(steps=1)
    for crops, rows, columns in (
        (
            [dict(type='ResizeEdge', scale=64),
             dict(type='CenterCrop', crop_size=48)],
            (12, 84), (28, 100),
        ),
        (
            [dict(type='EfficientNetCenterCrop', crop_size=64)],
            (16, 80), (32, 96),
        ),
        ([dict(type='CenterCrop', crop_size=48)], (24, 72), (40, 88)),
        ([dict(type='Resize', scale=(64, 64))], (0, 96), (0, 128)),
    ):  # fmt: skip
        model = classifier(load, *crops)
        init_default_scope('mmdet')  # of a model that was loaded later
        (one,) = mmaib.explain(model, trained / 'one.png', settings=settings)
        assert one.name in CIFAR
        assert one.bits.shape == SIZE
        for axis, part in ((1, rows), (0, columns)):
            there = one.bits.sum(axis).nonzero()[0]
            assert (there[0], there[-1] + 1) == part


def test_arrays_are_what_files_are(trained):
    path = trained / 'one.png'
    image = cv2.imread(str(path))
    model = classifier(dict(type='Resize', scale=(64, 64)))  # given arrays
    file, array = (data_of(model, given)['inputs'] for given in (path, image))
    assert torch.equal(file, array)
    with torch.inference_mode():
        assert mmaib.explain(model, image, settings=Settings(steps=1))
    for given, kind, message in (
        ([image], TypeError, 'got list'),
        (image[..., 0], ValueError, r'got one of shape \(96, 128\)'),
    ):
        with pytest.raises(kind, match=message):
            mmaib.explain(model, given)
    # of a model of grey images: not a row is turned
    model.data_preprocessor.mean = None
    grey = torch.arange(6.0).view(2, 3).numpy()
    model.cfg = Config(
        dict(test_dataloader=dict(dataset=dict(
            pipeline=[dict(type='mmpretrain.PackInputs')])))
    )  # fmt: skip
    assert data_of(model, grey)['inputs'].flatten().tolist() == [*range(6)]
    with pytest.raises(TypeError, match='others: a list of images'):
        mmaib.explain(model, path, others=str(path.parent))
