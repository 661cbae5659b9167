"""Two processes over gloo: the gradient of a joined batch, and nothing that
DistributedDataParallel would wait for."""

import copy
from functools import partial

import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from support import COMBINATIONS, CONFIGS, two_ranks
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from support.two_ranks import two_steps
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmaib.evaluation import CalibrationMetric
from mmaib.hooks import AttentionEvalHook


@pytest.fixture
def on_two_ranks(tmp_path):
    return partial(two_ranks.on_two_ranks, folder=tmp_path)


def detector():
    torch.manual_seed(0)
    return det.build(det.shrink(det.aib_config('aib-qt')))


def segmentor():
    torch.manual_seed(0)
    cfg = seg.shrink(seg.config(seg.UPERNET / f'aib-qt_{seg.BEIT}'))
    cfg.model.decode_head.dropout_ratio = 0.0
    cfg.model.auxiliary_head.dropout_ratio = 0.0
    return seg.build(cfg)


def classifier():
    torch.manual_seed(0)
    return cls.build(cls.shrink(cls.config('vgg16-aib-qt')))


def rectangles():
    """A second view that is larger by a fifth."""
    model = copy.deepcopy(cls.OURS)
    model['neck']['bottleneck']['attention'] = dict(
        type='mmaib.RectangularAttention', channels=(8, 8)
    )
    still = dict(angle=0.0, shift=0.0, scale=(1.2, 1.2))
    model['data_preprocessor'] = dict(
        num_classes=10, mean=[127.0] * 3, std=[64.0] * 3
    )
    return cls.make(model, equivariance=still)


def two_images(library):
    torch.manual_seed(1)
    if library is cls:
        return cls.inputs(2)
    if library is det:
        return det.inputs(((128, 160), (128, 160)))
    return seg.inputs()


def fix_chance(num_images):
    """Each image draws the same noise and the same boxes, whatever the
    batch."""

    def tiled(shape, **options):
        generator = torch.Generator().manual_seed(len(shape))
        draws, rows, *rest = shape
        block = (draws, rows // num_images, *rest)
        return normal(block, generator=generator).repeat(
            1, num_images, *[1] * len(rest)
        )

    from mmdet.models.task_modules.samplers import RandomSampler

    normal, torch.randn = torch.randn, tiled
    RandomSampler.random_choice = lambda self, gallery, num: gallery[:num]


def gradient(model, wrapper, data):
    """Of one step with frozen batch norm."""
    batch = model.data_preprocessor(data, training=True)
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    losses = wrapper(**batch, mode='loss')
    model.parse_losses(losses)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


LIBRARIES = {
    'detection': (det, detector),
    'segmentation': (seg, segmentor),
    'classification': (cls, classifier),
    'rectangles': (cls, rectangles),
}


def joined(rank, task):
    """This rank's gradient, and that of both images in one process."""
    library, build = LIBRARIES[task]
    data, model = two_images(library), build()
    share = {key: values[rank : rank + 1] for key, values in data.items()}
    fix_chance(1)
    wrapper = MMDistributedDataParallel(model)
    apart = gradient(model, wrapper, share)
    fix_chance(2)
    alone = build()
    return apart, gradient(alone, alone, data)


@pytest.mark.parametrize('task', LIBRARIES)
def test_two_ranks_have_the_gradient_of_the_joined_batch(on_two_ranks, task):
    (first, whole), (second, _) = on_two_ranks(partial(joined, task=task))
    assert any(name.endswith('quantizer.anchors') for name in whole)
    for name, gradients in whole.items():
        assert torch.equal(first[name], second[name]), name
        scale = gradients.abs().max().clamp(min=1e-4).item()
        torch.testing.assert_close(
            first[name], gradients, rtol=1e-4, atol=1e-4 * scale,
            msg=lambda text, name=name: f'{name}: {text}',
        )  # fmt: skip


def gated():
    torch.manual_seed(0)
    cfg = det.shrink(det.aib_config('aib'))
    cfg.model.neck.bottleneck = dict(
        modulation=dict(type='mmaib.InformationGate')
    )
    return det.build(cfg)


def gate_of(model):
    return dict(model.neck.bottleneck.modulation.named_buffers())


def statistics(rank):
    """Of this rank after two steps, and of one process after one step on
    both images."""
    data, model = two_images(det), gated()
    share = {key: values[rank : rank + 1] for key, values in data.items()}
    wrapper = MMDistributedDataParallel(model, broadcast_buffers=False)
    torch.manual_seed(rank)
    first, second = [], []
    for found in (first, second):
        gradient(model, wrapper, share)
        found.append(copy.deepcopy(gate_of(model)))
    alone = gated()
    batch = alone.data_preprocessor(data, training=True)
    images = batch['inputs'].split(1)
    # an image alone, whatever the other rank has
    levels = alone.eval().neck.neck(alone.backbone(images[rank]))
    mine = [level.mean((0, 2, 3), keepdim=True)[0] for level in levels]
    both = alone.neck.neck(alone.backbone(batch['inputs']))
    return first[0], second[0], mine, [level.detach() for level in both]


def test_two_ranks_hold_the_statistics_of_the_joined_batch(on_two_ranks):
    (first, later, mine, both), (other, other_later, other_mine, _) = (
        on_two_ranks(statistics)
    )
    assert len(first) == 16  # five levels of three, and the strength
    for ours, theirs in ((first, other), (later, other_later)):
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
    for level, x in enumerate(both):
        mean = x.mean((0, 2, 3))[:, None, None]
        var = x.var((0, 2, 3), correction=0)[:, None, None]
        for name, value in (('mean', mean), ('var', var)):
            found = first[f'statistics.{level}.{name}']
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4)
        # which are neither rank's own
        assert not torch.allclose(mine[level], mean, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(mine[level], other_mine[level], rtol=1e-3)
    assert first['statistics.0.steps'] == 1
    assert later['statistics.0.steps'] == 2


class Scores(BaseMetric):
    """The mean of what a classifier makes of its first class."""

    default_prefix = 'base'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            self.results.append(sample['pred_score'].double()[0].item())

    def compute_metrics(self, results):
        return dict(answer=sum(results) / len(results))


def maps_of_five_images(folder, wrap=lambda model: model):
    """What a test and its hook say; five do not fall into two halves."""
    model = cls.make()
    torch.nn.init.normal_(
        model.neck.bottleneck.attention.mean_conv.weight, std=0.3
    )
    for parameter in model.head.parameters():
        parameter.data *= 0.01  # or each image would be sure of its class
    data = cls.inputs(5, 128)  # features of 4x4 positions
    samples = [
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(data['inputs'], data['data_samples'])
    ]
    logged = {}
    runner = Runner(
        model=wrap(model),
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{distributed.is_initialized()}',
        test_dataloader=DataLoader(
            samples,
            batch_size=2,
            sampler=DefaultSampler(samples, shuffle=False),
            collate_fn=pseudo_collate,
        ),
        test_cfg=dict(),
        test_evaluator=Evaluator([Scores()]),
        custom_hooks=[AttentionEvalHook(ablations=['mirror', 'flatten'])],
        log_level='ERROR',
    )
    runner.visualizer.add_scalars = lambda values, step: logged.update(values)
    return {**runner.test(), **logged}


def maps_on_a_rank(rank, folder):
    torch.manual_seed(0)
    return maps_of_five_images(folder, MMDistributedDataParallel)


def test_two_ranks_measure_the_maps_of_all_images(on_two_ranks, tmp_path):
    first, second = on_two_ranks(partial(maps_on_a_rank, folder=tmp_path))
    torch.manual_seed(0)
    alone = maps_of_five_images(tmp_path / 'alone')
    assert first == second
    assert first == pytest.approx(alone)
    assert {
        'base/answer', 'attention/contrast', 'ablation/mirror/base/answer',
        'ablation/flatten/base/answer',
    } <= set(first)  # fmt: skip
    assert len({round(v, 9) for k, v in first.items() if 'base' in k}) == 3


def calibration_of_five_images(folder, wrap=lambda model: model):
    """Five do not fall into two halves."""
    model = cls.make()
    for parameter in model.head.parameters():
        parameter.data *= 0.01  # or each image would be sure of its class
    data = cls.inputs(5)
    samples = [
        dict(inputs=image, data_samples=sample)
        for image, sample in zip(data['inputs'], data['data_samples'])
    ]
    runner = Runner(
        model=wrap(model),
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{distributed.is_initialized()}',
        test_dataloader=DataLoader(
            samples,
            batch_size=2,
            sampler=DefaultSampler(samples, shuffle=False),
            collate_fn=pseudo_collate,
        ),
        test_cfg=dict(),
        test_evaluator=Evaluator([CalibrationMetric()]),
        log_level='ERROR',
    )
    return runner.test()


def calibration_on_a_rank(rank, folder):
    torch.manual_seed(0)
    return calibration_of_five_images(folder, MMDistributedDataParallel)


def test_two_ranks_are_calibrated_as_one(on_two_ranks, tmp_path):
    first, second = on_two_ranks(
        partial(calibration_on_a_rank, folder=tmp_path)
    )
    torch.manual_seed(0)
    alone = calibration_of_five_images(tmp_path / 'alone')
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)
    assert {'calibration/ece', 'calibration/aurc'} <= set(first)


def our_models():
    """Every model of our configs, shrunken, each once."""
    found = {}
    paths = [
        path
        for kind in ('aib', 'dvib', 'gate', 'readout', 'stage2')
        for path in CONFIGS.rglob(f'*{kind}*.py')
    ]
    for path in sorted(paths):
        if '_base_' in path.parts or 'mask-rcnn' in path.stem:
            continue  # the mask head is the base model's
        cfg = seg.config(path)
        if cfg.default_scope == 'mmseg':
            seg.shrink(cfg)
        elif cfg.default_scope == 'mmpretrain':
            small = 'sample' in path.parts and 'jpeg' not in path.stem
            cls.shrink(cfg, 1 if small else 16)
        elif 'sample' in path.parts:
            cfg.model.roi_head.bbox_head.num_classes = 5
        else:
            det.shrink(cfg)
        found.setdefault(repr(cfg.model), (path.stem, cfg))
    return list(found.values())


def steps_of_all_combinations(rank):
    for combination in COMBINATIONS:
        two_steps(cls.combination(*combination), rank, cls.inputs)
    return len(COMBINATIONS)


def test_no_parameter_is_unused_in_any_combination(on_two_ranks):
    assert on_two_ranks(steps_of_all_combinations) == [32, 32]


def steps_of_all_models(rank, models):
    trained = []
    for name, cfg in models:
        library = {'mmdet': det, 'mmseg': seg, 'mmpretrain': cls}[
            cfg.default_scope
        ]
        sizes = [((96, 96), (96, 96))] if library is det else []
        torch.manual_seed(0)
        two_steps(library.build(cfg), rank, partial(library.inputs, *sizes))
        trained.append(name)
    return trained


def test_no_parameter_is_unused_in_any_of_our_configs(on_two_ranks):
    work = partial(steps_of_all_models, models=our_models())
    first, second = on_two_ranks(work)
    assert first == second
    assert len(first) >= 20
    assert {name.split('_')[0] for name in first} == {
        'aib', 'aib-qt', 'aib-literal', 'aib-qt-literal',
        'vgg16-dvib', 'vgg16-aib', 'vgg16-aib-qt',
        'wrn28-10-aib', 'wrn28-10-aib-qt', 'wrn50-2-aib', 'wrn50-2-aib-qt',
        'gate', 'gate-qt', 'readout', 'latent-stage2', 'dvib',
        'pw-gate', 'rect-moments-gate',
    }  # fmt: skip


def complaint(model, rank):
    """The checks can fail."""
    images = two_images(det)
    own = {key: values[rank : rank + 1] for key, values in images.items()}
    try:
        two_steps(model, rank, lambda: copy.deepcopy(own))
    except (RuntimeError, AssertionError) as error:
        return str(error)
    return ''


def unused(rank):
    """A parameter that nothing uses."""
    model = detector()
    model.neck.idle = torch.nn.Parameter(torch.ones(1))
    return complaint(model, rank)


def apart(rank):
    """A parameter whose gradients are not joined."""
    model = detector()
    model._ddp_params_and_buffers_to_ignore = [
        'neck.bottleneck.quantizer.anchors'
    ]
    return complaint(model, rank)


@pytest.mark.parametrize(
    ('work', 'reason'),
    [
        (unused, 'Expected to have finished reduction'),
        (apart, 'the ranks have different parameters'),
    ],
)
def test_what_two_ranks_cannot_train_is_found(on_two_ranks, work, reason):
    for error in on_two_ranks(work):
        assert reason in error
