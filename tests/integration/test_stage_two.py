"""A second stage on a trained base model: its features frozen, a latent and
what predicts from it learning."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from support import CONFIGS
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib import preflight
from mmaib.losses import Reporter

SAMPLE = CONFIGS / 'sample'
VGG = 'vgg16-x0.125_1xb128-16e_cifar10-subset.py'
UPERNET = 'upernet_lite0_1xb4-500_camvid-320x240.py'
FASTER_RCNN = 'faster-rcnn_lite0_fpn_12e_bccd-256.py'
STAGE2 = {
    'classifier': SAMPLE
    / 'cifar10-subset'
    / 'latent-stage2_vgg16-x0.125_1xb128-8e_cifar10-subset.py',
    'segmentor': SAMPLE
    / 'camvid'
    / 'latent-stage2_upernet_lite0_1xb4-200_camvid-320x240.py',
    'detector': SAMPLE
    / 'bccd'
    / 'latent-stage2_faster-rcnn_lite0_fpn_4e_bccd-256.py',
}
LIBRARIES = {'classifier': cls, 'segmentor': seg, 'detector': det}
HEADS = {
    'classifier': 'head.',
    'segmentor': 'decode_head.',
    'detector': 'roi_head.bbox_head.',
}
# what a checkpoint of the base model has not
NEW = {
    'classifier': {'encoder.std.weight', 'encoder.std.bias'},
    'segmentor': {'encoder.std.weight', 'encoder.std.bias'},
    'detector': {
        f'{kind}_encoder.std.{name}'
        for kind in ('cls', 'reg')
        for name in ('weight', 'bias')
    },
}
LEARNING = {
    'classifier': ('fc_mean.', 'encoder.', 'hidden.', 'fc.'),
    'segmentor': ('fpn_bottleneck.', 'encoder.', 'conv_seg.'),
    'detector': (
        'shared_fcs.1.', 'cls_encoder.', 'reg_encoder.', 'fc_cls.', 'fc_reg.'
    ),
}  # fmt: skip
every_library = pytest.mark.parametrize('kind', LIBRARIES)


def shrink(kind, cfg):
    if kind == 'segmentor':
        return seg.shrink(cfg)
    if kind == 'detector':  # with the classes of det.inputs()
        cfg.model.roi_head.bbox_head.num_classes = 5
        # scores of an untrained one are low
        cfg.model.test_cfg.rcnn.score_thr = 0.0
    return cfg


def read_config(kind):
    if kind == 'classifier':
        return Config.fromfile(STAGE2['classifier'].with_name(VGG))
    if kind == 'segmentor':
        cfg = seg.config(STAGE2['segmentor'].with_name(UPERNET))
        return shrink(kind, cfg)
    return shrink(kind, seg.config(STAGE2['detector'].with_name(FASTER_RCNN)))


def stage2_config(kind, **fields):
    cfg = shrink(kind, seg.config(STAGE2[kind]))
    cfg.model.update(fields)
    return cfg


def pair(kind, **fields):
    """A base model whose statistics no initialisation gives, and its second
    stage."""
    torch.manual_seed(0)
    base = LIBRARIES[kind].build(read_config(kind))
    for module in base.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    ours = LIBRARIES[kind].build(stage2_config(kind, **fields))
    return base, ours, ours.load_state_dict(base.state_dict(), strict=False)


def inputs(kind):
    return LIBRARIES[kind].inputs()


def answers(kind, model, data):
    found = []
    for sample in LIBRARIES[kind].predict(model, copy.deepcopy(data)):
        if kind == 'detector':
            found += [sample.pred_instances.bboxes]
            found += [sample.pred_instances.scores]
        elif kind == 'segmentor':
            found.append(sample.seg_logits.data)
        else:
            found.append(sample.pred_score)
    return found


@every_library
def test_a_base_models_checkpoint_lacks_the_stds_alone(kind):
    base, ours, loaded = pair(kind)
    assert {*loaded.missing_keys} == {HEADS[kind] + name for name in NEW[kind]}
    assert not loaded.unexpected_keys
    # and at its mean it predicts what the base model does, to the bit
    data = inputs(kind)
    ours.test_draws = 'mean'
    for a, b in zip(answers(kind, ours, data), answers(kind, base, data)):
        assert torch.equal(a, b)


def step(kind, model, times=2):
    optimizer = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=0.01, weight_decay=0.1))
    ).optimizer
    for _ in range(times):
        losses = LIBRARIES[kind].loss(model, inputs(kind))
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return losses


@every_library
def test_latent_and_predictors_learn_and_nothing_else_moves(kind):
    _, ours, _ = pair(kind)
    before = copy.deepcopy(ours.state_dict())
    losses = step(kind, ours)
    assert any(name.startswith('loss_kl') for name in losses)
    own = tuple(HEADS[kind] + name for name in LEARNING[kind])
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    moved = set()
    for key, value in ours.state_dict().items():
        learns = key.startswith(own) and not key.endswith(statistics)
        assert torch.equal(value, before[key]) is not learns, key
        moved.add(learns)
    assert moved == {True, False}


@every_library
def test_modes_survive_every_change_of_them(kind):
    _, ours, _ = pair(kind)
    own = tuple(HEADS[kind] + name for name in LEARNING[kind])
    norms = 0
    for mode in (True, False, True):
        for model in (ours.train(mode), copy.deepcopy(ours)):
            for name, module in model.named_modules():
                learns = f'{name}.'.startswith(own) or not name
                norm = isinstance(module, _BatchNorm)
                assert module.training is (mode and learns and not norm), name
                norms += norm and f'{name}.'.startswith(own)
    assert bool(norms) is (kind == 'segmentor')


def test_a_frozen_heads_losses_are_means_over_its_draws():
    """Not losses of the mean, which it would predict."""
    _, ours, _ = pair('detector', train_draws=dict(latent=3))
    rows = []
    ours.roi_head.bbox_head.register_forward_hook(
        lambda head, args, out: rows.append(
            (head.training, len(args[0]), len(out[0]))
        )
    )
    seen = []
    own = ours.roi_head._bbox_forward
    ours.roi_head._bbox_forward = lambda *a: seen.append(own(*a)) or seen[-1]
    det.loss(ours, det.inputs())
    ((training, rois, drawn),) = rows
    assert not training
    assert drawn == 3 * rois
    assert len(seen[0]['cls_score']) == drawn


def test_the_control_without_noise_is_the_config_at_its_mean():
    cfg = stage2_config('classifier')
    cfg.merge_from_dict(
        {
            'model.train_draws': 'mean',
            'model.test_draws': 'mean',
            'model.head.latent.beta': 0,
        }
    )
    model = cls.build(cfg)
    losses = step('classifier', model)
    assert float(losses['loss_kl']) == 0
    head = model.head
    assert not head.encoder.std.weight.any()  # nothing of it is used
    assert head.fc.weight.grad.any()


def test_a_head_of_two_hidden_layers_is_another_architecture():
    base = read_config('classifier')
    base.model.head.mid_channels = [32, 32]
    ours = cls.build(stage2_config('classifier'))
    state = cls.build(base).state_dict()
    loaded = ours.load_state_dict(state, strict=False)
    assert 'head.fc.weight' in loaded.missing_keys
    assert 'head.layers.0.fc.weight' in loaded.unexpected_keys


@every_library
def test_uncertainty_comes_with_the_config(kind):
    _, ours, _ = pair(kind)
    for sample in LIBRARIES[kind].predict(ours, inputs(kind)):
        found = sample.pred_instances if kind == 'detector' else sample
        assert 'entropy' in found


def test_without_a_latent_there_is_no_second_stage():
    plain = dict(cls.RESNET, type='mmaib.AIBImageClassifier')
    with pytest.raises(ValueError, match='trains a latent.*no head'):
        cls.make(plain, frozen='features')


def test_a_map_in_front_goes_on_learning():
    model = cls.make(frozen='features')
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    reporters = {
        f'{name}.{n}'
        for name, module in model.named_modules()
        if isinstance(module, Reporter)
        for n, _ in module.named_parameters()
    }
    assert learning == reporters | {'head.fc.weight', 'head.fc.bias'}


# Before a training starts
def saved(tmp_path, model, name='base.pth'):
    path = tmp_path / name
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


@every_library
def test_a_checkpoint_of_the_base_model_passes_and_what_is_new_is_told(
    kind, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(
        preflight.weights, 'print_log', lambda text, **_: said.append(text)
    )
    base, ours, _ = pair(kind)
    fresh = LIBRARIES[kind].build(stage2_config(kind))
    cfg = Config(dict(load_from=saved(tmp_path, base)))
    preflight.check_frozen(cfg, fresh)
    (text,) = said
    new = text.split('start anew: ')[1]
    assert {*new.split(', ')} == {HEADS[kind] + name for name in NEW[kind]}
    assert 'not in the model' not in text
    # its own checkpoint has nothing new
    cfg.load_from = saved(tmp_path, ours)
    preflight.check_frozen(cfg, fresh)
    assert 'new' not in said[1]


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    ours = cls.build(stage2_config('classifier'))
    resnet = copy.deepcopy(cls.RESNET)
    resnet['backbone'].update(base_channels=4, stem_channels=4)
    resnet['head']['in_channels'] = 32  # as the latent has
    cfg = Config(dict(load_from=saved(tmp_path, cls.make(resnet))))
    with pytest.raises(ValueError, match="'features'.*another arch") as error:
        preflight.check_frozen(cfg, ours)
    assert '\n  backbone.blocks.0.0.conv.weight is not in it' in str(
        error.value
    )
    wider = read_config('classifier')
    wider.model.backbone.channels = [16] * 7
    cfg.load_from = saved(tmp_path, cls.build(wider))
    with pytest.raises(ValueError, match=r'another arch(.|\n)*size mismatch'):
        preflight.check_frozen(cfg, ours)
    classes = read_config('classifier')
    classes.model.head.num_classes = 7
    cfg.load_from = saved(tmp_path, cls.build(classes))
    with pytest.raises(ValueError, match=r'size mismatch for head\.fc'):
        preflight.check_frozen(cfg, ours)
    # a map in front of the neck is part of what is to be frozen
    cfg.load_from = saved(tmp_path, cls.make())
    with pytest.raises(ValueError, match='another architecture'):
        preflight.check_frozen(cfg, ours)


def test_nothing_to_start_from_is_told():
    ours = cls.build(stage2_config('classifier'))
    with pytest.raises(ValueError, match='load_from=CHECKPOINT'):
        preflight.check_frozen(Config(dict(load_from=None)), ours)
    preflight.check_frozen(Config(dict(resume=True)), ours)
    learning = cls.build(stage2_config('classifier', frozen=None))
    preflight.check_frozen(Config({}), learning)
