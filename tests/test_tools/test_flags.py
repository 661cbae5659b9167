"""Flags of the base libraries' own `train.py` and `test.py`, in ours."""

import ast
import json
import pickle
import re
from importlib import import_module
from pathlib import Path

import mmcv
import pytest
import torch
from mmpretrain.structures import DataSample
from PIL import Image
from support import CONFIGS, DIGITS, NO_WORKERS, REPOSITORY, TREES
from support import classification as cls
from support import segmentation as seg

from mmaib.cli import launch
from mmaib.cli.main import main
from mmaib.cli.parser import parser_of
from mmaib.cli.test import apply_options

TOOLS = REPOSITORY / 'tools'
CIFAR = (
    CONFIGS
    / 'sample'
    / 'cifar10-subset'
    / 'aib-qt-literal_vgg16-x0.125_1xb128-16e_cifar10-subset.py'
)
TEST = [
    *(option.replace('val_', 'test_') for option in NO_WORKERS[2:]),
    'test_dataloader.dataset.indices=3',
]
# the base libraries' mirror image, without the mirror
SAME = """
from copy import deepcopy
tta_pipeline = deepcopy(_base_.test_pipeline)
tta_pipeline[-1] = dict(
    type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=0.0)],
                                    [_base_.test_pipeline[-1]]])
"""


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_no_flag_of_a_library_is_missing(run, library, tool):
    source = Path(import_module(library).__file__).parent / '.mim/tools' / tool
    theirs = {
        argument.value
        for call in ast.walk(ast.parse(source.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, 'attr', '') == 'add_argument'
        for argument in call.args
        if argument.value.startswith('-')
    }
    assert '--launcher' in theirs
    ours = set(re.findall(r'--[\w-]+', run(TOOLS / tool, '--help')))
    assert theirs - ours == set()


def checkpoint(model, folder):
    path = folder / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def segmentor(tmp_path):
    return checkpoint(seg.build(seg.config(DIGITS)), tmp_path)


def metrics(work_dir):
    (path,) = work_dir.glob('*/*.json')
    return json.loads(path.read_text())


def test_a_segmentor(run, tmp_path, segmentor):
    """Labels and pictures in folders; test-time augmentation that changes
    nothing, on two ranks with the hook that draws attention, is the test."""
    config = tmp_path / 'same.py'
    config.write_text(f'_base_ = {str(DIGITS)!r}\n{SAME}')
    told = run(
        TOOLS / 'test.py', config, segmentor, '--work-dir', tmp_path / 'plain',
        '--out', tmp_path / 'labels', '--show-dir', tmp_path / 'shown',
        '--cfg-options', *TEST,
    )  # fmt: skip
    assert 'another architecture' not in told
    labels = sorted((tmp_path / 'labels').glob('*.png'))
    assert len(labels) == 3
    assert Image.open(labels[0]).size == (128, 128)
    assert len(list((tmp_path / 'shown').rglob('test_*.png'))) == 3
    run(
        TOOLS / 'dist_test.sh', config, segmentor, 2, '--tta', '--work-dir',
        tmp_path / 'tta', '--out', tmp_path / 'metrics.json', '--out-item',
        'metrics', '--cfg-options', *TEST,
    )  # fmt: skip
    plain = metrics(tmp_path / 'plain')
    saved = json.loads((tmp_path / 'metrics.json').read_text())
    for name in ('mIoU', 'aAcc'):
        assert saved[name] == plain[name]


def test_a_detector_and_its_mirror_image(run, tmp_path):
    from support import detection as det

    model = det.build(seg.config(TREES))
    model.roi_head.test_cfg.score_thr = 0.0
    del model.neck.bottleneck.attention  # never trained, and told last
    told = run(
        TOOLS / 'test.py', TREES, checkpoint(model, tmp_path), '--tta',
        '--work-dir', tmp_path / 'work', '--out', tmp_path / 'boxes.pkl',
        '--cfg-options', *TEST, 'model.test_cfg.rcnn.score_thr=0.0',
    )  # fmt: skip
    end = told[told.index('of the metrics above') :]
    assert 'neck.bottleneck.attention.mean_conv.weight is not in it' in end
    found = pickle.loads((tmp_path / 'boxes.pkl').read_bytes())
    assert len(found) == 3
    for sample in found:
        boxes = sample['pred_instances']['bboxes']
        assert 0 < len(boxes) <= 100
        assert boxes.min() >= 0
        assert boxes.max() <= 256


@pytest.fixture
def images(tmp_path):
    """Two classes of four files."""
    torch.manual_seed(0)
    for split in ('train', 'test'):
        for name in ('bird', 'cat'):
            folder = tmp_path / 'data' / 'cifar10_subset' / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = torch.randint(0, 256, (32, 32, 3)).byte().numpy()
                Image.fromarray(pixels).save(folder / f'{number}.png')
    return tmp_path / 'data'


def test_a_classifiers_scores_are_the_mean_with_its_mirror_image(
    run, images, tmp_path
):
    model = cls.build(seg.config(CIFAR))
    model.test_draws = 'mean'
    run(
        TOOLS / 'test.py', CIFAR, checkpoint(model, tmp_path), '--tta',
        '--work-dir', tmp_path / 'work', '--out', tmp_path / 'scores.pkl',
        '--cfg-options', 'model.test_draws=mean', data_root=images,
    )  # fmt: skip
    found = pickle.loads((tmp_path / 'scores.pkl').read_bytes())
    files = sorted((images / 'cifar10_subset' / 'test').glob('*/*.png'))
    assert len(found) == len(files) == 8
    for sample, file in zip(found, files):
        image = torch.from_numpy(mmcv.imread(str(file))).permute(2, 0, 1)
        both = [image, image.flip(-1)]
        samples = [DataSample() for _ in both]
        first, second = cls.predict(
            model, dict(inputs=both, data_samples=samples)
        )
        expected = (first.pred_score + second.pred_score) / 2
        torch.testing.assert_close(
            torch.as_tensor(sample['pred_score']), expected
        )


def test_a_training_that_does_not_evaluate(run, scalars, tmp_path):
    """And a config's persistent_workers=True, which torch refuses without
    workers."""
    run(
        TOOLS / 'train.py', DIGITS, '--work-dir', tmp_path, '--no-validate',
        '--no-persistent-workers', '--cfg-options',
        'train_dataloader.num_workers=0', 'train_cfg.max_iters=2',
        'train_cfg.val_interval=1', 'train_dataloader.batch_size=2',
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    entries = scalars(tmp_path)
    assert len(entries) == 2
    assert all('loss' in entry for entry in entries)


@pytest.fixture
def apply(monkeypatch):
    """What `mmaib test` makes of a config, on a machine with a GPU."""
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')

    def parse(path, *flags):
        words = [str(path), __file__, *map(str, flags)]
        args = parser_of('test').parse_args(words)
        args.out_item = args.out_item or 'pred'
        cfg = launch.load_config(args)
        apply_options(cfg, args)
        return cfg

    return parse


def test_a_metric_that_is_a_class(apply, tmp_path):
    """In MMEngine's pure-Python style, and as it dumps that."""
    for kind in ('IoUMetric', 'mmseg.evaluation.metrics.IoUMetric'):
        path = tmp_path / f'{kind}.py'
        path.write_text(
            f'_base_ = {str(DIGITS)!r}\n'
            'from mmaib.evaluation import AttentionMetric\n'
            f'test_evaluator = [dict(type={kind!r}), '
            'dict(type=AttentionMetric)]\n'
        )
        library, ours = apply(
            path, '--out', tmp_path / 'labels'
        ).test_evaluator
        assert library.output_dir == str(tmp_path / 'labels')
        assert 'output_dir' not in ours
    path.write_text(
        f'_base_ = {str(DIGITS)!r}\n'
        'from mmseg.evaluation import IoUMetric\n'
        'test_evaluator = dict(type=IoUMetric)\n'
    )
    cfg = apply(path, '--out', tmp_path / 'labels')
    assert cfg.test_evaluator.output_dir == str(tmp_path / 'labels')


def test_mixed_precision_and_memory(apply):
    cfg = apply(DIGITS, '--amp', '--no-pin-memory')
    assert cfg.test_cfg.fp16 is True
    assert cfg.test_dataloader.pin_memory is False
    cfg = apply(CIFAR)
    assert 'fp16' not in cfg.test_cfg
    assert cfg.test_dataloader.pin_memory is True
    assert cfg.test_dataloader.collate_fn.type == 'default_collate'
    assert 'collate_fn' not in apply(DIGITS).test_dataloader


def test_what_is_shown(apply):
    flags = ['--show', '--wait-time', 0.5, '--interval', 7]
    hook = apply(CIFAR, *flags, '--show-dir', 'out').default_hooks
    assert hook.visualization.interval == 7
    for path in (CIFAR, DIGITS, TREES):
        hook = apply(path, *flags).default_hooks.visualization
        assert hook.wait_time == 0.5
        assert hook.show is True


def test_the_ade20k_configs_bring_their_augmentation(apply):
    """Six scales, each with its mirror image, as mmseg's `--tta`."""
    path = seg.UPERNET / f'aib-qt_{seg.BEIT}'
    cfg = apply(path, '--tta')
    assert cfg.model.type == 'mmaib.SegTTAModel'
    assert cfg.model.module.type == 'mmaib.AIBEncoderDecoder'
    _, aug = cfg.test_dataloader.dataset.pipeline
    assert aug.type == 'TestTimeAug'
    assert [len(step) for step in aug.transforms] == [6, 2, 1, 1]


@pytest.mark.parametrize('theirs', ['SegTTAModel', 'mmseg.SegTTAModel'])
def test_a_merged_prediction_has_no_uncertainty_of_a_view(
    apply, tmp_path, theirs
):
    path = tmp_path / 'drawn.py'
    path.write_text(
        f'_base_ = {str(DIGITS)!r}\ntta_model = dict(type={theirs!r})\n'
        'model = dict(test_draws=dict(attention=2,'
        ' uncertainty=True))\n'
    )
    assert apply(path).model.test_draws.uncertainty
    model = apply(path, '--tta').model
    assert model.type == 'mmaib.SegTTAModel'
    assert model.module.test_draws == dict(attention=2)


def test_every_one_of_several_data_sets_is_augmented(apply, tmp_path):
    several = tmp_path / 'several.py'
    several.write_text(
        f'_base_ = {str(TREES)!r}\n'
        'test_dataloader = dict(dataset=dict(_delete_=True,'
        " type='ConcatDataset', datasets=["
        "{{_base_.test_dataloader.dataset}}, dict(type='RepeatDataset',"
        ' times=1, dataset={{_base_.val_dataloader.dataset}})]))\n'
    )
    cfg = apply(several, '--tta')
    first, second = cfg.test_dataloader.dataset.datasets
    for dataset in (first, second.dataset):
        assert dataset.pipeline[-1].type == 'TestTimeAug'


def test_pictures_without_a_hook_that_draws_them(apply, tmp_path):
    without = tmp_path / 'without.py'
    without.write_text('default_scope = "mmdet"\ntest_dataloader = dict()\n')
    with pytest.raises(ValueError, match='--show-dir need default_hooks'):
        apply(without, '--show-dir', 'out')


@pytest.mark.parametrize(
    ('path', 'flags', 'match'),
    [
        (TREES, ['--out', 'folder'], r'--out of pred.*\.pkl.*got folder'),
        (DIGITS, ['--out', 'a.txt', '--out-item', 'metrics'], r'\.json'),
    ],
)
def test_where_nothing_can_be_saved(apply, path, flags, match):
    with pytest.raises(ValueError, match=match):
        apply(path, *flags)


def test_an_item_without_a_file(capsys):
    words = ['test', str(TREES), __file__, '--out-item', 'metrics']
    assert main(words) == 2
    assert '--out-item needs --out' in capsys.readouterr().err
