import copy
import math

import pytest
import torch
from support import DIGITS
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch import nn

from mmaib.functional import rectangle_window, warp_images, warp_rectangles
from mmaib.models.equivariance import Equivariance

RECTANGLE = dict(type='mmaib.RectangularAttention', channels=(8, 8))
LITE0 = DIGITS.with_name(
    'aib-literal_upernet_lite0_1xb8-500_digits-128x128.py'
)


def classifier(equivariance, bottleneck):
    model = copy.deepcopy(cls.OURS)
    model['neck']['bottleneck'] = bottleneck
    return cls.make(model, equivariance=equivariance), cls.inputs(2, 64)


def detector(equivariance, bottleneck):
    cfg = det.shrink(det.aib_config('aib'))
    cfg.model.neck.bottleneck = bottleneck
    cfg.model.equivariance = equivariance
    torch.manual_seed(0)
    return det.build(cfg), det.inputs(((64, 64), (64, 64)))


def segmentor(equivariance, bottleneck):
    cfg = seg.shrink(seg.config(LITE0))
    cfg.model.neck.bottleneck = bottleneck
    cfg.model.equivariance = equivariance
    torch.manual_seed(0)
    return seg.build(cfg), seg.inputs()


LIBRARIES = dict(
    classification=(cls, classifier),
    detection=(det, detector),
    segmentation=(seg, segmentor),
)
ANY_LIBRARY = pytest.mark.parametrize('library', LIBRARIES)
GATE = dict(type='mmaib.InformationGate')


@ANY_LIBRARY
@pytest.mark.parametrize('modulation', [None, GATE], ids=['scale', 'gate'])
def test_a_second_view_adds_its_loss_and_changes_nothing_else(
    library, modulation
):
    tools, build = LIBRARIES[library]
    bottleneck = dict(attention=RECTANGLE, modulation=modulation)
    found = []
    for equivariance in (None, dict()):
        model, data = build(equivariance, copy.deepcopy(bottleneck))
        torch.manual_seed(1)
        found.append((model, tools.loss(model, copy.deepcopy(data))))
    (plain, losses), (ours, more) = found
    assert more.keys() - losses.keys() == {'loss_equivariance'}
    for name, value in losses.items():
        torch.testing.assert_close(more[name], value, msg=name)
    for name, buffer in ours.named_buffers():
        other = plain.get_buffer(name)
        torch.testing.assert_close(buffer, other, msg=name)
    ours.parse_losses(more)[0].backward()
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert ours.neck.bottleneck.attention.mean.weight.grad.any()


def test_a_gate_inside_the_backbone_does_not_take_the_second_view_in():
    model = copy.deepcopy(cls.OURS)
    model['neck']['bottleneck'] = dict(attention=RECTANGLE)
    model['backbone'] = dict(
        type='mmaib.AttendedBackbone',
        backbone=model['backbone'],
        at='layer1',
        in_channels=8,
        bottleneck=dict(modulation=GATE),
    )
    model = cls.make(model, equivariance=dict())
    cls.loss(model, cls.inputs(2, 64))
    gate = model.backbone.ib_attention[0].modulation
    assert gate.statistics[0].steps == 1
    assert not gate.paused


@ANY_LIBRARY
def test_the_second_view_is_the_warped_image(library):
    tools, build = LIBRARIES[library]
    model, data = build(dict(), dict(attention=RECTANGLE))
    nn.init.normal_(model.neck.bottleneck.attention.mean.weight)
    views = []
    model.backbone.register_forward_pre_hook(
        lambda _, args: views.append(args[0].detach())
    )
    torch.manual_seed(1)
    warps = []
    draw = model.equivariance.warps

    def recorded(images):
        warps.append(draw(images))
        return warps[0]

    model.equivariance.warps = recorded
    losses = tools.loss(model, data)
    assert losses['loss_equivariance'] > 0
    first, second = views
    torch.testing.assert_close(second, warp_images(first, warps[0]))
    batch = model.data_preprocessor(copy.deepcopy(data), training=True)
    losses = model.eval()(**batch, mode='loss')
    assert 'loss_equivariance' not in losses


def around_the_light(x):
    """Rectangles around what is bright, by its second moments; they move as
    the image does."""
    height, width = x.shape[2:]
    light = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    axes = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    t = torch.stack(torch.meshgrid(*axes, indexing='ij'))
    centre = torch.einsum('nhw,khw->nk', light, t)
    off = t - centre[..., None, None]
    spread = torch.einsum('nhw,nkhw,nlhw->nkl', light, off, off)
    values, vectors = torch.linalg.eigh(spread)
    angle = torch.atan2(vectors[:, 1, 0], vectors[:, 0, 0])
    return torch.cat([centre, values.sqrt(), angle[:, None]], 1)


def test_a_map_that_moves_with_its_image_has_no_loss():
    rule = Equivariance(weight=1.0, angle=180, scale=(0.9, 1.2), shift=0.1)
    params = torch.tensor([0.5, 0.48, 0.2, 0.1, 0.7]).expand(8, 5)
    images = rectangle_window(params, (96, 96))[:, None]
    warp = rule.warps(images)
    moved = warp_images(images, warp)
    views = around_the_light(images), around_the_light(moved)
    assert rule.loss(*views, warp, (96, 96)) < 1e-4
    assert rule.loss(views[0], views[0], warp, (96, 96)) > 0.05
    # which the square of the difference of angles does not know
    l2 = Equivariance(weight=1.0, residual='l2')
    assert l2.loss(*views, warp, (96, 96)) > 1


def test_targets_outside_of_the_image_do_not_count():
    rule = Equivariance(weight=0.5)
    first = torch.tensor([[0.9, 0.5, 0.2, 0.1, 0.3], [0.4] * 5])
    # the first leaves it
    warp = torch.tensor([[0.0, 1.0, 0.3, 0.0]]).expand(2, 4)
    second = torch.rand(2, 5)
    found = rule.loss(first, second, warp, (8, 8))
    target = warp_rectangles(first, warp, (8, 8))
    expected = 0.5 * rule.residual(second, target)[1]
    torch.testing.assert_close(found, expected)
    nowhere = rule.loss(first[:1], second[:1], warp[:1], (8, 8))
    assert nowhere == 0


@pytest.mark.parametrize(
    ('shift', 'leaves'),
    [
        ((-0.2, 0.0), 0),
        ((0.2, 0.0), 1),
        ((0.0, -0.2), 2),
        ((0.0, 0.2), 3),
    ],
    ids=['top', 'bottom', 'left', 'right'],
)
def test_a_target_leaves_the_image_on_any_side(shift, leaves):
    """One rectangle a side; the one that goes over it counts for nothing,
    wherever it is found, and the mean is over the others."""
    rule = Equivariance(weight=1.0, residual='l2')
    centres = [[0.1, 0.5], [0.9, 0.5], [0.5, 0.1], [0.5, 0.9]]
    first = torch.tensor([[*c, 0.2, 0.1, 0.3] for c in centres])
    warp = torch.tensor([[0.0, 1.0, *shift]]).expand(4, 4)
    second = warp_rectangles(first, warp, (8, 8))
    second[leaves] += 5
    assert rule.loss(first, second, warp, (8, 8)) < 1e-9
    inside = (leaves + 1) % 4
    second[inside, 2] += 0.3
    found = rule.loss(first, second, warp, (8, 8))
    assert float(found) == pytest.approx(0.3**2 / 3, rel=1e-4)


def test_warps_are_within_their_ranges():
    rule = Equivariance(angle=30, scale=(0.5, 2.0), shift=0.2)
    angle, scale, *shifts = rule.warps(torch.empty(2000, 1)).unbind(1)
    assert math.radians(28) < angle.abs().max() <= math.radians(30)
    assert angle.mean().abs() < 0.05
    assert 0.5 <= scale.min() < 0.52
    assert 1.95 < scale.max() <= 2.0
    # half of them are larger
    assert 0.45 < (scale > 1).float().mean() < 0.55
    for shift in shifts:
        assert 0.19 < shift.abs().max() <= 0.2
        assert shift.mean().abs() < 0.02
    # none follows from another
    together = torch.corrcoef(torch.stack([angle, scale.log(), *shifts]))
    assert (together - torch.eye(4)).abs().max() < 0.15


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(weight=-1.0), 'equivariance.weight must be >= 0'),
        (dict(residual='cosine'), 'equivariance.residual must be one of'),
        (dict(angle=-1.0), 'equivariance.angle'),
        (dict(scale=(1.2, 0.8)), 'equivariance.scale must be two factors'),
        (dict(scale=1.2), 'equivariance.scale must be two factors'),
        (dict(scale=('a', 'b')), 'equivariance.scale must be two factors'),
        (dict(shift=-0.1), 'equivariance.shift'),
        (dict(shift=0.6), 'equivariance.shift must be <= 0.5'),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Equivariance(**fields)


def test_a_model_without_a_rectangle_is_refused():
    with pytest.raises(
        ValueError, match=r'equivariance needs.*got VariationalAttention'
    ):
        cls.make(cls.OURS, equivariance=dict())
    with pytest.raises(TypeError, match='equivariance must be a dict'):
        classifier(0.1, dict(attention=RECTANGLE))
