"""The calibration study: what it trains, measures and tabulates."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from imagecorruptions import get_corruption_names
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from scipy import stats
from support import CONFIGS, REPOSITORY, shared_data, table_cells
from support.processes import programs

from mmaib.cli import runs
from mmaib.cli.visualize import metric_of
from mmaib.evaluation.calibration_metric import Predictions
from mmaib.hooks import AttentionEvalHook
from mmaib.visualization import image_sources
from mmaib.visualization.work_dirs import read_records

TOOL = REPOSITORY / 'tools' / 'experiments' / 'calibration.py'
SAMPLE = CONFIGS / 'sample' / 'cifar10-subset'
BCCD = CONFIGS / 'sample' / 'bccd'
CAMVID = CONFIGS / 'sample' / 'camvid'
FEW = 'vgg16-x0.125_1xb128-16e_cifar10-subset.py'
PLAIN = SAMPLE / FEW
STAGE2 = SAMPLE / 'latent-stage2_vgg16-x0.125_1xb128-8e_cifar10-subset.py'


@pytest.fixture
def tool(studies):
    import calibration

    return calibration


@pytest.fixture
def sets(tool):
    import calibration_sets

    return calibration_sets


@pytest.fixture
def tables(tool):
    import calibration_table

    return calibration_table


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Ten classes of twelve images to train on and two to test."""
    from PIL import Image

    for split, count in (('train', 12), ('test', 2)):
        for c in range(10):
            folder = tmp_path / 'data' / 'cifar10_subset' / split / str(c)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.randint(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.jpg')
    monkeypatch.setenv('MMAIB_DATA', str(tmp_path / 'data'))
    return tmp_path


@pytest.fixture
def command(tool, monkeypatch):
    def run(*args):
        line = ['calibration.py', *map(str, args)]
        monkeypatch.setattr(sys, 'argv', line)
        tool.main()

    return run


class Trainings:
    """Stands in for `tools/train.py`: leaves a checkpoint of the first
    step."""

    def __init__(self, tool):
        self.tool, self.commands = tool, []

    def __call__(self, command, **kwargs):
        from mmengine.registry import MODELS, init_default_scope

        if command[0] == 'git':
            return SimpleNamespace(stdout='abc123\n')
        self.commands.append(command)
        options = command[command.index('--cfg-options') + 1 :]
        cfg = self.tool.read_config(command[4], options)
        init_default_scope(cfg.default_scope)
        if cfg.default_scope == 'mmpretrain':
            cfg.model.data_preprocessor = cfg.data_preprocessor
        torch.manual_seed(cfg.randomness.seed)
        model = MODELS.build(cfg.model)
        if cfg.get('load_from'):
            start = torch.load(cfg.load_from)['state_dict']
            model.load_state_dict(start, strict=False)
        work_dir = self.tool.Path(command[command.index('--work-dir') + 1])
        path = work_dir / 'epoch_1.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        (work_dir / 'last_checkpoint').write_text(f'{path}\n')
        log = work_dir / '1' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('{"loss": 1.0, "time": 1.0}\n')
        return SimpleNamespace(returncode=0)


@pytest.fixture
def trainings(tool, monkeypatch):
    own = Trainings(tool)
    monkeypatch.setattr(runs, 'subprocess', programs(own))
    return own


def study_of(data, *more):
    return (
        PLAIN, STAGE2, '--out', data / 'out', '--jobs', 1, '--kl-weights',
        0.3, 1, '--draws', 3, '--severities', 1, 5, '--corruptions',
        'gaussian_noise', 'contrast', '--seeds', 1, 2, *more,
    )  # fmt: skip


ARMS = {
    'plain', 'temperature', 'platt', 'isotonic', 'stage2-no-noise',
    'stage2-kl-0.3', 'stage2-kl-1',
}  # fmt: skip


def test_a_study_from_start_to_table(data, command, trainings, capsys):
    records = data / 'records.jsonl'
    command(*study_of(data, '--records', records))
    assert len(trainings.commands) == 2 * 4
    # each second stage from the plain run of its seed
    for run in trainings.commands[2:]:
        seed = 2 if 'randomness.seed=2' in run else 1
        start = data / 'out' / 'plain' / f'seed_{seed}' / 'epoch_1.pth'
        assert f'load_from={start}' in run
    control = [r for r in trainings.commands if 'model.train_draws=mean' in r]
    assert len(control) == 2
    assert all('model.head.latent.beta=0' in run for run in control)
    # without the tenth that calibrators are fitted on
    child = Config.fromfile(trainings.commands[0][4])
    indices = child.train_dataloader.dataset.indices
    assert len(indices) == 108
    assert not {0, 10, 110} & {*indices}
    found = {
        (record['name'], record['seed']): record['metrics']
        for record in read_records(records)
    }
    assert {*found} == {(arm, seed) for arm in ARMS for seed in (1, 2)}
    plain, scaled = found['plain', 1], found['temperature', 1]
    # a temperature changes no label, and is fitted on no test image
    for where in ('clean', 'gaussian_noise-5', 'contrast-1'):
        assert plain[f'{where}/accuracy'] == scaled[f'{where}/accuracy']
    fitted = ('plain', 'temperature', 'platt', 'isotonic')
    assert len({found[arm, 1]['clean/nll'] for arm in fitted}) == 4
    assert 'clean/aurc_entropy' not in plain
    drawn = found['stage2-kl-1', 1]
    assert 'clean/aurc_mutual_information' in drawn
    # at the first step, the control is the plain classifier
    control = found['stage2-no-noise', 2]
    assert control['clean/nll'] == pytest.approx(
        found['plain', 2]['clean/nll']
    )
    text = (data / 'out' / 'calibration.md').read_text()
    assert text.count('Paired differences') == 4
    # again: nothing is trained, nor measured
    before = len(trainings.commands)
    capsys.readouterr()
    command(*study_of(data, '--records', records))
    assert len(trainings.commands) == before
    assert 'measure' not in capsys.readouterr().out
    # another test would mix with this one, or take its place
    with pytest.raises(SystemExit):
        command(*study_of(data, '--records', records, '--max-images', 5))
    assert 'is of another test' in capsys.readouterr().err
    # and so would the same test of other trainings
    with pytest.raises(SystemExit, match='would be written over by one of'):
        command(
            *study_of(
                data, '--records', records, '--out', data / 'other',
                '--cfg-options', 'optim_wrapper.lr=1',
            )
        )  # fmt: skip
    assert len(trainings.commands) == before
    # elsewhere, of the records alone
    command(
        PLAIN, STAGE2, '--out', data / 'elsewhere', '--records', records,
        '--seeds', 1, 2, '--kl-weights', 0.3, 1, '--report-only',
    )  # fmt: skip
    again = (data / 'elsewhere' / 'calibration.md').read_text()
    assert again.split('Command')[0] == text.split('Command')[0]


def test_corruptions_are_the_same_whenever_they_are_made(sets, tmp_path):
    image = np.random.randint(0, 256, (32, 32, 3), np.uint8)
    results = dict(img=image, sample_idx=3, gt_label=1)
    for name in get_corruption_names('common'):
        first, second = (
            sets.Corrupted(name, 3, tmp_path / folder) for folder in 'ab'
        )
        made = first(results)['img']
        assert np.array_equal(made, second(results)['img']), name
        assert np.array_equal(made, first(results)['img']), 'kept'
        assert (made != image).mean() > 0.05, name
        assert np.array_equal(made, sets.corrupt(image, name, 3, '3')), name
        # what is read from a file is BGR
        bgr = dict(results, img=image[..., ::-1], img_path='a.jpg')
        assert np.array_equal(first(bgr)['img'], made[..., ::-1]), name
    # another image in its place is not the one that was kept
    other = dict(results, img=255 - image)
    assert not np.array_equal(first(other)['img'], made)


def detections(count=400):
    """Right as often as the square of the score; of class 1 always."""
    scores = torch.rand(count, dtype=torch.double)
    classes = torch.arange(count) % 2
    right = (torch.rand(count) < scores.square()) | (classes == 1)
    return Predictions(
        torch.stack([1 - scores, scores], 1).log(),
        right.long(),
        boxes=torch.rand(count, 4).double(),
        classes=classes,
    )


def test_calibrators_against_their_references(sets):
    import calibrators
    from sklearn.linear_model import LogisticRegression

    held_out, found = detections(), detections()
    logits = [x.log_probs.diff(dim=1).numpy() for x in (held_out, found)]
    reference = LogisticRegression(C=1e9).fit(logits[0], held_out.labels)
    assert np.allclose(
        calibrators.platt(held_out)(found).exp(),
        reference.predict_proba(logits[1]),
        atol=1e-3,
    )
    # isotonic: rises, and in each step is the share that is right
    steps = calibrators.isotonic(held_out)
    own = steps(held_out).exp()[:, 1]
    order = held_out.log_probs[:, 1].argsort()
    assert (own[order].diff() >= -1e-9).all()
    for step in own.unique():
        there = own == step
        share = held_out.labels[there].double().mean()
        assert float(step) == pytest.approx(float(share), abs=1 / 400)
    # each class by its own
    by_class = calibrators.isotonic_by_class(held_out)(found).exp()[:, 1]
    assert by_class[found.classes == 1].min() > 0.99
    first = held_out.classes == 0
    alone = calibrators.isotonic(calibrators.some(held_out, first))
    assert torch.equal(
        by_class[found.classes == 0],
        alone(calibrators.some(found, found.classes == 0)).exp()[:, 1],
    )


def test_a_group_of_few_detections_has_the_calibrator_of_all(sets):
    import calibrators

    held_out, found = detections(), detections()
    classes = (torch.arange(400) < 29).long()
    held_out = held_out._replace(classes=classes)
    of_all = calibrators.isotonic(held_out)(found)
    by_class = calibrators.isotonic_by_class(held_out)
    few = by_class(found._replace(classes=torch.ones(400).long()))
    assert torch.equal(few, of_all)


def test_an_image_without_a_detection_has_no_probabilities(sets):
    """Under a corruption a detector may find nothing."""
    import calibrators

    held_out = detections()
    for name, fit in calibrators.FITS.items():
        assert fit(held_out)(detections(0)).shape == (0, 2), name


def test_a_temperature_is_that_of_a_grid(sets):
    import calibrators

    logits = 5 * torch.randn(400, 6, dtype=torch.double)
    labels = torch.multinomial((logits / 2.5).softmax(1), 1)[:, 0]
    log_probs = logits.log_softmax(1)

    def nll(t):
        return torch.nn.functional.cross_entropy(log_probs / t, labels)

    grid = torch.linspace(0.5, 5, 2000, dtype=torch.double)
    best = float(min(grid, key=nll))
    found = calibrators.fitted_temperature(log_probs, labels)
    assert found == pytest.approx(best, abs=0.01)
    assert found == pytest.approx(2.5, rel=0.25)


def test_a_temperature_of_nothing(sets):
    import calibrators

    with pytest.raises(ValueError, match='no predictions'):
        calibrators.fitted_temperature(torch.ones(0, 3), torch.ones(0).long())


@pytest.mark.parametrize('scale', [0.1, 20.0])
def test_a_temperature_far_from_1(sets, scale):
    import calibrators

    """Of probabilities that are true once divided by it."""
    logits = torch.randn(4000, 3, dtype=torch.double)
    labels = torch.distributions.Categorical(logits=logits).sample()
    found = calibrators.fitted_temperature(scale * logits, labels)
    assert found == pytest.approx(scale, rel=0.1)


def test_calibrators_of_several_classes(sets):
    """Their probabilities add up, and the data's own temperature is found."""
    import calibrators

    logits = 3 * torch.randn(4000, 4, dtype=torch.double)
    labels = torch.multinomial((logits / 2).softmax(1), 1)[:, 0]
    held_out = Predictions(logits.log_softmax(1), labels)
    true = torch.nn.functional.cross_entropy(logits / 2, labels)
    for name in ('temperature', 'platt', 'isotonic'):
        fitted = calibrators.FITS[name](held_out)(held_out)
        assert torch.allclose(fitted.exp().sum(1), torch.ones(4000).double())
        nll = torch.nn.functional.nll_loss(fitted, labels)
        assert float(nll) == pytest.approx(float(true), abs=0.03), name


def test_fewer_images_of_a_whole_set_begin_and_end_with_it(sets, data):
    cfg = Config.fromfile(PLAIN)
    args = SimpleNamespace(
        max_images=20, corruptions=[], severities=[], out=data
    )
    own = sets.ImageSets(args, cfg)
    test = cfg.test_dataloader.dataset
    assert len(own._loader(test).dataset) == 20
    args.max_images = 7
    kept = own._loader(test).dataset
    whole = sets.DATASETS.build(test)
    paths = [kept.get_data_info(i)['img_path'] for i in range(len(kept))]
    assert paths == [
        whole.get_data_info(i)['img_path'] for i in range(0, 20, 3)
    ]


def test_fewer_images_of_those_held_out(sets, data):
    cfg = Config.fromfile(PLAIN)
    args = SimpleNamespace(
        held_out=None, max_images=5, corruptions=['fog', 'snow'],
        severities=[1, 5], out=data,
    )  # fmt: skip
    own = sets.ImageSets(args, cfg)
    assert [(shift.name, shift.severity) for shift in own.shifts] == [
        ('fog', 1), ('fog', 5), ('snow', 1), ('snow', 5)
    ]  # fmt: skip
    kept = own._loader(sets.held_out(args, cfg)).dataset
    whole = sets.DATASETS.build(cfg.train_dataloader.dataset)
    paths = [kept.get_data_info(i)['img_path'] for i in range(len(kept))]
    assert paths == [
        whole.get_data_info(i)['img_path'] for i in range(0, 120, 30)
    ]


def test_the_steps_and_hooks_of_a_config_may_be_classes(sets):
    steps = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations)]
    dataset = dict(type='mmseg.BaseSegDataset', pipeline=steps)
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    (loading,) = image_sources.test_pipeline(cfg).transforms
    assert type(loading) is LoadImageFromFile
    for kind in (AttentionEvalHook, 'mmaib.hooks.AttentionEvalHook'):
        hook = dict(type=kind, metric=dict(foreground=[2]))
        cfg = Config(dict(default_hooks=dict(a=None, b=hook)))
        assert metric_of(cfg).foreground == [2]


@pytest.mark.parametrize('as_class', [False, True])
@pytest.mark.parametrize(
    ('pipeline', 'at'),
    [(['LoadImageFromFile', 'LoadAnnotations', 'PackInputs'], 1),
     (['Resize', 'PackInputs'], 0)],
)  # fmt: skip
def test_where_an_image_is_corrupted(sets, tmp_path, pipeline, at, as_class):
    steps = [
        dict(type=TRANSFORMS.get(name) if as_class else name)
        for name in pipeline
    ]
    shift = sets.Corrupted('fog', 1, tmp_path)
    assert shift.after_loading(steps) == [*steps[:at], shift, *steps[at:]]


def test_an_interval_is_that_of_the_mean_over_seeds(tables):
    values = [0.1, 0.12, 0.17]
    text = tables.difference(values)
    known = stats.ttest_1samp(values, 0).confidence_interval()
    low, high = map(float, re.findall(r'[+-][\d.]+', text)[1:])
    assert (low, high) == pytest.approx(known, abs=1e-4)
    assert text.endswith('*')
    assert not tables.difference([0.1, 0.2, 0.3]).endswith('*')
    assert tables.difference([0.1]) == '+0.1000'
    assert tables.difference([]) == 'not run'


def test_the_table_pairs_seeds(tables):
    records = {
        'plain': {s: {'clean/ece': 0.1 * s} for s in (1, 2, 3)},
        'temperature': {s: {'clean/ece': 0.05} for s in (1, 2, 3)},
        'stage2-no-noise': {},
        'stage2-kl-1': {s: {'clean/ece': 0.1 * s - 0.02} for s in (1, 3)},
    }
    lines = tables.table(records)
    assert lines[0] == '| arm | seeds | ECE |'
    assert lines[2] == '| plain | 1, 2, 3 | 0.2000 ± 0.1000 |'
    assert lines[4] == '| stage two without noise | not run | not run |'
    to_plain = lines[lines.index('Paired differences to plain:') + 2 :]
    (row,) = [x for x in to_plain if 'kl-1' in x][:1]
    assert row.endswith('-0.0200 [-0.0200, -0.0200] * |')


def by_shift(**figures):
    """Records of a figure by shift."""
    return {
        f'{where}/{name}': value
        for name, values in figures.items()
        for where, value in zip(('clean', 'fog-1', 'fog-5'), values)
        if value is not None
    }


def test_a_detector_that_finds_nothing_under_a_shift(tables):
    """Blind at severity 5 it has an AP of 0 there, and no mean of what is
    calibrated: a table is of the same shifts in every arm and seed."""
    blind = by_shift(
        bbox_mAP=[0.6, 0.4, None], bbox_mAP_s=[-1.0, -1.0, None],
        d_ece=[0.1, 0.2, None],
    )  # fmt: skip
    blind['shift/d_ece'] = blind['shift/bbox_mAP'] = 99.0  # an earlier tool's
    records = {
        'plain': {
            1: by_shift(bbox_mAP=[0.6, 0.4, 0.2], d_ece=[0.1, 0.3, 0.7])
        },
        'temperature': {1: blind},
        'stage2-no-noise': {},
    }  # fmt: skip
    lines = tables.table(records)
    head, _, plain, scaled = table_cells('\n'.join(lines))[:4]
    assert head[2:] == [
        'D-ECE', 'box AP', 'D-ECE, shift (1 of 2 shifts)', 'box AP, shift'
    ]  # fmt: skip
    assert plain[2:] == ['0.1000', '0.6000', '0.3000', '0.3000']
    assert scaled[2:] == ['0.1000', '0.6000', '0.2000', '0.2000']
    at = lines.index('Paired differences to plain:')
    (paired,) = table_cells(lines[at + 4])
    assert paired[2:] == ['+0.0000', '+0.0000', '-0.1000', '-0.1000']
    assert 'D-ECE, severity 1 (1 of 2 shifts)' in '\n'.join(
        tables.table(records)
    )


def test_a_seed_without_a_figure_is_counted(tables):
    records = {
        'plain': {s: by_shift(d_ece=[0.1 * s or None]) for s in (0, 1, 2)},
        'temperature': {s: by_shift(d_ece=[0.3]) for s in (0, 1, 2)},
        'stage2-no-noise': {},
    }
    text = '\n'.join(tables.table(records))
    assert '| plain | 0, 1, 2 | 0.1500 ± 0.0707 (2 of 3) |' in text
    paired = text[text.index('Paired differences to plain:') :].splitlines()
    assert paired[4].endswith('] (2 of 3) |')


@pytest.mark.parametrize('severity', [1, 3, 5])
def test_a_severity_is_the_one_that_its_name_says(
    sets, tables, tmp_path, severity
):
    """And grows from one to the next."""
    from imagecorruptions import corrupt

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    shift = sets.Corrupted('contrast', severity, tmp_path)
    assert shift.folder.name == f'contrast-{severity}'
    made = shift(dict(img=image, sample_idx=0))['img']
    # without a random draw it is the package's own
    theirs = corrupt(image, corruption_name='contrast', severity=severity)
    assert np.array_equal(made, theirs)
    run = {'clean/ece': 0.0, 'fog-1/ece': 1.0, 'fog-5/ece': 5.0,
           'snow-1/ece': 2.0}  # fmt: skip
    means = tables.over_common_shifts({'plain': {1: run}})[0]['plain'][1]
    assert means['shift-1/ece'] == 1.5
    assert means['shift-5/ece'] == 5.0
    assert means['shift/ece'] == pytest.approx(8 / 3)


@pytest.mark.parametrize(
    'option',
    [
        'train_dataloader.dataset.indices=[0,1,2]',
        'train_dataloader.dataset.indices=60',
    ],
)
def test_a_temperature_is_not_fitted_on_images_of_the_training(
    data, command, trainings, option
):
    """An option chooses images over the child that leaves a tenth out."""
    with pytest.raises(SystemExit, match='with indices: its every tenth'):
        command(*study_of(data, '--cfg-options', option))
    assert not trainings.commands


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (('--corruptions', 'rain'), 'choose from gaussian_noise'),
        (('--max-images', 0), '--max-images: must be an integer >= 1'),
        (('--seeds', 1, 1), '--seeds must differ'),
        (('--severities', 0), '--severities: invalid choice: 0'),
        (('--held-out', 'data_prefix=nowhere'), '--held-out'),
    ],
)
def test_bad_arguments(command, capsys, data, tmp_path, more, message):
    with pytest.raises(SystemExit):
        command(PLAIN, STAGE2, '--out', tmp_path, *more)
    assert message in capsys.readouterr().err


def test_a_second_config_that_is_no_second_stage(command, capsys, tmp_path):
    with pytest.raises(SystemExit):
        command(PLAIN, SAMPLE / f'aib-literal_{FEW}', '--out', tmp_path)
    assert "frozen must be 'features'" in capsys.readouterr().err


def test_no_config_is_written_over(command, data, tmp_path):
    folder = tmp_path / 'configs'
    folder.mkdir()
    paths = [folder / path.name for path in (PLAIN, STAGE2)]
    for path, base in zip(paths, (PLAIN, STAGE2)):
        path.write_text(f'_base_ = {str(base)!r}\n')
    with pytest.raises(SystemExit, match='take another --out'):
        command(*paths, '--out', tmp_path, '--seeds', 1)
    assert paths[0].read_text() == f'_base_ = {str(PLAIN)!r}\n'


def few_cells(folder):
    """Three micrographs of each split."""
    theirs = shared_data() / 'bccd'
    (folder / 'bccd' / 'annotations').mkdir(parents=True)
    (folder / 'bccd' / 'images').symlink_to(theirs / 'images')
    for split in ('train', 'val', 'test'):
        name = f'annotations/{split}.json'
        told = json.loads((theirs / name).read_text())
        told['images'] = told['images'][:3]
        kept = {image['id'] for image in told['images']}
        told['annotations'] = [
            a for a in told['annotations'] if a['image_id'] in kept
        ]
        (folder / 'bccd' / name).write_text(json.dumps(told))
    return (
        BCCD / 'faster-rcnn_lite0_fpn_12e_bccd-256.py',
        BCCD / 'latent-stage2_faster-rcnn_lite0_fpn_4e_bccd-256.py',
        '--held-out', 'ann_file=annotations/test.json',
    )  # fmt: skip


def few_streets(folder):
    """Three views of each split."""
    for kind in ('img_dir', 'ann_dir'):
        for split in ('train', 'val', 'test'):
            own = folder / 'camvid' / kind / split
            own.mkdir(parents=True)
            theirs = shared_data() / 'camvid' / kind / split
            for path in sorted(theirs.iterdir())[:3]:
                (own / path.name).symlink_to(path)
    return (
        CAMVID / 'upernet_lite0_1xb4-500_camvid-320x240.py',
        CAMVID / 'latent-stage2_upernet_lite0_1xb4-200_camvid-320x240.py',
        '--held-out', 'data_prefix.img_path=img_dir/test',
        'data_prefix.seg_map_path=ann_dir/test', '--max-images', 2,
    )  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ('few', 'field', 'metric', 'drawn', 'fits'),
    [
        (
            few_cells,
            'roi_head.bbox_head',
            'bbox_mAP',
            'score_std',
            {
                'temperature',
                'platt',
                'isotonic',
                'isotonic-by-class',
                'isotonic-by-size',
            },
        ),
        (
            few_streets,
            'decode_head',
            'mIoU',
            'mutual_information',
            {'temperature', 'platt', 'isotonic'},
        ),
    ],
)
def test_a_detector_and_a_segmentor(
    few,
    field,
    metric,
    drawn,
    fits,
    command,
    trainings,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv('MMAIB_DATA', str(tmp_path / 'data'))
    out = tmp_path / 'out'
    command(
        *few(tmp_path / 'data'), '--out', out, '--jobs', 1, '--seeds', 1,
        '--kl-weights', 1, '--draws', 2, '--corruptions', 'contrast',
        '--severities', 5,
    )  # fmt: skip
    options = [run[run.index('--cfg-options') :] for run in trainings.commands]
    assert f'model.{field}.latent.beta=1' in options[2]
    found = {
        record['name']: record['metrics']
        for record in read_records(out / 'records.jsonl')
    }
    plain = found['plain']
    # nothing was learned, so without noise all is as it was
    assert found['stage2-no-noise'] == pytest.approx(plain)
    assert fits <= found.keys()
    for name in fits:
        for where in ('clean', 'contrast-5'):
            assert (
                found[name][f'{where}/{metric}'] == plain[f'{where}/{metric}']
            )
            assert found[name][f'{where}/nll'] != plain[f'{where}/nll']
    assert f'clean/aurc_{drawn}' in found['stage2-kl-1']
