"""An information gate in the three base libraries, and as a readout of a
frozen one."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch.nn.modules.batchnorm import _BatchNorm

from mmaib.layers import InformationGate
from mmaib.sampling.draws import Draws

LIBRARIES = {
    'detector': det,
    'any detector': det,
    'segmentor': seg,
    'classifier': cls,
}
OURS = 'neck.bottleneck.'
GATE = dict(type='mmaib.InformationGate', beta=0.1)
every_library = pytest.mark.parametrize('kind', LIBRARIES)


def read_config(kind):
    """A base model with batch norm that learns, dropout, and no part of
    ours."""
    if kind == 'classifier':
        return cls.Config(dict(model=copy.deepcopy(cls.RESNET)))
    if kind == 'segmentor':
        return seg.shrink(seg.config(seg.UPERNET / seg.BEIT))
    cfg = det.shrink(det.plain_config())
    cfg.model.backbone.norm_eval = False
    if kind == 'any detector':
        model = cfg.model
        for part in ('roi_head', 'rpn_head'):
            model.pop(part)
        model.type = 'RetinaNet'
        model.bbox_head = dict(
            type='RetinaHead',
            num_classes=5,
            in_channels=32,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        )
        model.train_cfg = dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        )
        model.test_cfg = dict(
            nms_pre=50, min_bbox_size=0, score_thr=0.0, max_per_img=20,
            nms=dict(type='nms', iou_threshold=0.5),
        )  # fmt: skip
    return cfg


def gated_config(kind, anchors=None, **fields):
    cfg = read_config(kind)
    model = cfg.model
    bottleneck = dict(modulation=GATE)
    if anchors:
        bottleneck['quantizer'] = dict(num_anchors=anchors)
    neck = dict(
        type='mmaib.AIBNeck', neck=model.neck.to_dict(), bottleneck=bottleneck
    )
    if kind == 'classifier':
        model.type = 'mmaib.AIBImageClassifier'
        neck.update(where='before', in_channels=64)
    elif kind == 'segmentor':
        model.type = 'mmaib.AIBEncoderDecoder'
        neck.update(map='shared', in_channels=[32] * 4, map_level=2)
    elif kind == 'any detector':
        model.base, model.type = model.type, 'mmaib.WithAuxLosses'
    else:
        model.type = 'mmaib.AIBFasterRCNN'
        model.roi_head.type = 'mmaib.AIBRoIHead'  # for draws
    model.neck = neck
    model.update(fields)
    return cfg


def trained(model):
    """Weights and statistics that no initialisation gives."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model


def pair(kind, **fields):
    """A base model, and ours with its weights."""
    torch.manual_seed(0)
    base_model = trained(LIBRARIES[kind].build(read_config(kind)))
    ours = LIBRARIES[kind].build(gated_config(kind, **fields))
    result = ours.load_state_dict(base_model.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys
    assert all(key.startswith(OURS) for key in result.missing_keys)
    (gate,) = (m for m in ours.modules() if isinstance(m, InformationGate))
    for own in gate.statistics:
        own.mean.normal_()
        own.var.uniform_(0.5, 2)
    return base_model, ours, gate


def answers(kind, model, data):
    found = []
    for sample in LIBRARIES[kind].predict(model, copy.deepcopy(data)):
        if 'pred_instances' in sample:
            found += [sample.pred_instances.bboxes]
            found += [sample.pred_instances.scores]
        elif 'seg_logits' in sample:
            found.append(sample.seg_logits.data)
        else:
            found.append(sample.pred_score)
    return found


def equal(first, second):
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


@every_library
@pytest.mark.parametrize('draws', ['mean', dict(attention=1, seed=0)])
def test_at_the_start_it_is_the_base_model_to_the_bit(kind, draws):
    if kind == 'any detector' and draws != 'mean':
        pytest.skip('WithAuxLosses is evaluated at the mean')
    base_model, ours, gate = pair(kind, test_draws=draws)
    data = LIBRARIES[kind].inputs()
    gate.strength.fill_(0.0)
    expected = answers(kind, base_model, data)
    assert sum(len(x) for x in expected)
    assert all(equal(answers(kind, ours, data), expected))
    gate.strength.fill_(1.0)
    assert not all(equal(answers(kind, ours, data), expected))


@every_library
def test_its_first_step_has_the_base_models_losses_to_the_bit(kind):
    """Without the map's draws, which would take numbers from the base model's
    samplers and dropouts; with them the features are the same."""
    base_model, ours, gate = pair(kind, train_draws='mean')
    gate.strength.fill_(0.0)
    data = LIBRARIES[kind].inputs()
    losses = []
    for model in (base_model, ours):
        torch.manual_seed(1)
        losses.append(LIBRARIES[kind].loss(model, copy.deepcopy(data)))
    theirs, mine = losses
    if kind == 'classifier':  # mmpretrain's name is MMEngine's of the sum
        theirs['loss_cls'] = theirs.pop('loss')
    for name, value in theirs.items():
        values = value if isinstance(value, list) else [value]
        ours_too = mine[name] if isinstance(value, list) else [mine[name]]
        assert all(equal(values, ours_too)), name
    assert {*mine} - {*theirs} >= {'loss_info', 'info_bits_per_image'}

    gate.train()
    x = torch.randn(2, gate.out_channels, 8, 8)
    with Draws(attention=1).open():
        assert torch.equal(gate(x, torch.rand(2, 1, 8, 8)), x)


# The base model frozen


ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.5)
SGD = dict(type='SGD', lr=1e-2, weight_decay=0.5, momentum=0.9)


def trains(kind, model, optimizer=ADAMW, steps=3):
    """Steps with an evaluation between them, as a training has it."""
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=optimizer,
                    clip_grad=dict(max_norm=35))
    )  # fmt: skip
    for _ in range(steps):
        model.train()
        log = model.train_step(LIBRARIES[kind].inputs(), wrapper)
        model.eval()
        LIBRARIES[kind].predict(model, LIBRARIES[kind].inputs())
    return wrapper.optimizer, log


@every_library
@pytest.mark.parametrize(
    ('optimizer', 'anchors'),
    [(ADAMW, None), (SGD, 5)],
    ids=['AdamW', 'SGD, anchors'],
)
def test_a_frozen_base_model_keeps_every_bit_while_the_map_learns(
    kind, optimizer, anchors
):
    base_model, ours, _ = pair(kind, frozen='base', anchors=anchors)
    before = copy.deepcopy(ours.state_dict())
    used, log = trains(kind, ours, optimizer)
    assert float(log['loss_info']) > 0
    after = ours.state_dict()
    for key, value in before.items():
        changed = not torch.equal(after[key], value)
        moves = key.startswith(OURS) and not key.endswith('strength')
        assert changed is moves, key
    # the base library's own tensors, by its names
    theirs = base_model.state_dict()
    kept = copy.deepcopy(base_model)
    loaded = kept.load_state_dict(
        {key.replace('neck.neck.', 'neck.'): value
         for key, value in after.items() if not key.startswith(OURS)},
    )  # fmt: skip
    assert not [*loaded.missing_keys, *loaded.unexpected_keys]
    assert all(torch.equal(kept.state_dict()[k], v) for k, v in theirs.items())
    # nor does the optimizer hold anything of them
    learning = {id(p) for p in ours.neck.bottleneck.parameters()}
    assert {id(p) for p in used.state} == learning
    assert {id(p) for p in ours.parameters() if p.grad is not None} <= learning


@every_library
def test_without_freezing_the_base_model_would_move(kind):
    """So the test above can fail: weights, and statistics if it has any."""
    _, ours, _ = pair(kind)
    before = copy.deepcopy(ours.state_dict())
    trains(kind, ours)
    after = ours.state_dict()
    same = [k for k, v in before.items() if torch.equal(after[k], v)]
    learned = {name for name, _ in ours.named_parameters()}
    assert not learned.intersection(same) - {'backbone.pos_embed'}
    statistics = [key for key in before if 'running_mean' in key]
    assert statistics
    assert not {*statistics}.intersection(same)


@every_library
def test_modes_survive_every_change_of_them(kind):
    _, ours, _ = pair(kind, frozen='base')
    inside = {*ours.neck.bottleneck.modules()}
    for mode in (True, False, True, True):
        for model in (ours.train(mode), copy.deepcopy(ours)):
            inside = {*model.neck.bottleneck.modules()}
            for name, module in model.named_modules():
                own = module is model or module in inside
                assert module.training is (mode and own), name


def test_a_frozen_base_model_of_a_latent_learns_what_the_base_model_has_not():
    """The latent's mean is the base model's last layer, which stays."""
    cfg = det.shrink(det.aib_config('aib-qt'))
    cfg.model['frozen'] = 'base'
    torch.manual_seed(0)
    base_model = trained(det.build(det.shrink(det.plain_config())))
    ours = det.build(cfg)
    ours.load_state_dict(base_model.state_dict(), strict=False)
    theirs = {
        key.replace('neck.', 'neck.neck.', 1): value
        for key, value in base_model.state_dict().items()
    }
    trains('detector', ours)
    after = ours.state_dict()
    for key, value in theirs.items():
        assert torch.equal(after[key], value), key
    assert after['roi_head.bbox_head.cls_encoder.std.weight'].any()


def test_statistics_of_a_layer_of_ours_learn():
    """A base model's batch norms stay, those in front of the map are not
    its."""
    cfg = cls.shrink(cls.config('wrn28-10-aib'))
    cfg.model['frozen'] = 'base'
    model = cls.build(cfg)
    trains('classifier', model)
    norms = {
        name: int(module.num_batches_tracked)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    }
    ours = {name: n for name, n in norms.items() if OURS in name}
    assert ours
    assert all(ours.values())
    assert not any(n for name, n in norms.items() if name not in ours)


def test_nothing_to_learn_is_told():
    with pytest.raises(ValueError, match='leaves nothing to learn'):
        cls.make(
            dict(cls.RESNET, type='mmaib.AIBImageClassifier'),
            frozen='base',
        )
    with pytest.raises(ValueError, match="frozen must be.*'neck'"):
        cls.make(frozen='neck')
