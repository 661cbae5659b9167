import math

import pytest
import torch

from mmaib.functional import (
    l2_residual,
    periodic_residual,
    rectangle_corners,
    rectangle_window,
    warp_images,
    warp_rectangles,
)


def rectangles(count=20, dtype=torch.float32):
    low = torch.tensor([0.0, 0.0, 0.1, 0.1, -3.0], dtype=dtype)
    high = torch.tensor([1.0, 1.0, 0.6, 0.6, 3.0], dtype=dtype)
    return low + (high - low) * torch.rand(count, 5, dtype=dtype)


def logistic(x):
    return 1 / (1 + math.exp(-x))


def bell(t, centre, extent, sharpness):
    """Eq. 1."""
    return logistic(sharpness * (1 - ((t - centre) / extent) ** 2))


@pytest.mark.parametrize('sharpness', [6.0, 10.0])
def test_equals_equations_1_to_5(sharpness):
    height, width = 5, 8
    for params in rectangles(5, torch.float64):
        found = rectangle_window(params, (height, width), sharpness)
        m1, m2, s1, s2, alpha = params.tolist()
        cos, sin = math.cos(-alpha), math.sin(-alpha)
        for i in range(height):
            for j in range(width):
                t1, t2 = i / (height - 1) - m1, j / (width - 1) - m2
                r1 = cos * t1 - sin * t2 + m1  # Eq. 3
                r2 = sin * t1 + cos * t2 + m2
                expected = bell(r1, m1, s1, sharpness) * bell(
                    r2, m2, s2, sharpness
                )
                assert found[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_corners_are_the_turned_extents():
    for params in rectangles(5, torch.float64):
        m1, m2, s1, s2, alpha = params.tolist()
        turn = complex(math.cos(alpha), math.sin(alpha))
        expected = [
            complex(m1, m2) + turn * complex(a * s1, b * s2)
            for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))
        ]
        found = [complex(*row) for row in rectangle_corners(params).tolist()]
        assert found == pytest.approx(expected)


def test_a_window_is_a_quarter_in_its_corners():
    params = torch.tensor([0.5, 0.45, 0.2, 0.3, 0.5])
    window = rectangle_window(params, (401, 401))
    for row, column in rectangle_corners(params).mul(400).round().int():
        assert window[row, column] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ('dtype', 'tolerance'),
    # of float32, alpha + pi itself is rounded by 2e-7
    [(torch.float64, 1e-12), (torch.float32, 5e-6)],
)
def test_the_same_map_by_its_other_names(dtype, tolerance):
    params = rectangles(200, dtype)
    turned, swapped = params.clone(), params[:, [0, 1, 3, 2, 4]]
    turned[:, 4] += math.pi
    swapped[:, 4] += math.pi / 2
    maps = rectangle_window(params, (9, 9))
    for other in (turned, swapped):
        assert (rectangle_window(other, (9, 9)) - maps).abs().max() < tolerance
        assert periodic_residual(params, other).max() < tolerance
        assert l2_residual(params, other).min() > 2


DEGENERATE = {
    'no extent': [0.5, 0.5, 0.0, 0.0, 0.3],
    'hardly any': [0.5, 0.5, 1e-30, 1e-8, 0.3],
    'negative': [0.5, 0.5, -1.0, 0.2, 0.3],
    'endless': [0.5, 0.5, 1e20, 1e20, 0.3],
    'far away': [1e20, -1e25, 0.2, 0.1, 0.3],
    'many turns': [0.5, 0.5, 0.2, 0.1, 1e8],
}


@pytest.mark.parametrize('size', [(9, 7), (1, 7), (9, 1), (1, 1)])
@pytest.mark.parametrize('params', DEGENERATE)
def test_degenerate_parameters_have_finite_gradients(size, params):
    values = torch.tensor(DEGENERATE[params], requires_grad=True)
    out = rectangle_window(values, size)
    assert out.shape == size
    assert ((out >= 0) & (out <= 1)).all()
    out.square().sum().backward()
    assert values.grad.isfinite().all()


@pytest.mark.parametrize('size', [(1, 9), (9, 1), (1, 1)])
def test_a_row_that_is_alone_lies_in_the_middle(size):
    params = torch.tensor([0.5, 0.5, 0.2, 0.2, 0.0])
    whole = rectangle_window(params, (9, 9))
    rows = [4] if size[0] == 1 else list(range(9))
    columns = [4] if size[1] == 1 else list(range(9))
    found = rectangle_window(params, size)
    torch.testing.assert_close(found, whole[rows][:, columns])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    params = rectangles().to(dtype).requires_grad_()
    out = rectangle_window(params, (9, 9))
    assert out.dtype == torch.float32
    assert torch.equal(out, rectangle_window(params.float(), (9, 9)))
    out.sum().backward()
    assert params.grad.isfinite().all()


def test_gradients():
    params = rectangles(3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: rectangle_window(p, (4, 5)), params
    )


WARPS = {
    'nothing': [0.0, 1.0, 0.0, 0.0],
    'turned': [0.8, 1.0, 0.0, 0.0],
    'larger': [0.0, 1.3, 0.0, 0.0],
    'smaller': [0.0, 0.7, 0.0, 0.0],
    'down': [0.0, 1.0, 0.15, 0.0],
    'to the left': [0.0, 1.0, 0.0, -0.1],
    'all of it': [-2.0, 1.2, -0.1, 0.08],
}


@pytest.mark.parametrize('warp', WARPS)
def test_a_drawn_rectangle_goes_where_its_target_is(warp):
    """A picture of a rectangle, warped, is that of the warped rectangle."""
    size, name = (96, 96), warp
    warp = torch.tensor([WARPS[name]])
    params = torch.tensor([[[0.45, 0.55, 0.25, 0.15, 0.4]]])
    still = rectangle_window(params, size)
    drawn = warp_images(still, warp)
    expected = rectangle_window(warp_rectangles(params, warp, size), size)
    assert (drawn - expected).abs().max() < 0.02
    if name != 'nothing':
        assert (still - expected).abs().max() > 0.3


@pytest.mark.parametrize('count', [2, 7, 38])
def test_a_coarse_grid_moves_as_the_image_does(count):
    """Its first and last position are half a cell from the border."""
    params = rectangles()[:, None]
    warp = torch.tensor([WARPS['all of it']]).expand(len(params), 4)
    moved = warp_rectangles(params, warp, (count, count))

    def on_image(rectangle):
        return (rectangle[..., :2] * (count - 1) + 0.5) / count - 0.5

    angle, scale, down, right = WARPS['all of it']
    rows, columns = on_image(params).unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    expected = torch.stack(
        [
            scale * (cos * rows - sin * columns) + down,
            scale * (sin * rows + cos * columns) + right,
        ],
        -1,
    )
    torch.testing.assert_close(on_image(moved), expected)


def test_an_image_goes_where_it_is_said():
    """By whole pixels and a quarter turn, without interpolation."""
    image = torch.arange(64.0).view(1, 1, 8, 8)
    down = warp_images(image, torch.tensor([[0.0, 1.0, 2 / 8, -1 / 8]]))
    torch.testing.assert_close(down[..., 2:, :7], image[..., :6, 1:])
    assert not down[..., :2, :].any()
    # a point to the right of the centre goes up as cos, -sin turn it
    quarter = warp_images(image, torch.tensor([[math.pi / 2, 1.0, 0, 0]]))
    torch.testing.assert_close(quarter, image.rot90(1, (2, 3)))


def test_residuals_of_small_differences_agree():
    params = rectangles(dtype=torch.float64)
    moved = params + 1e-3 * torch.randn_like(params)
    torch.testing.assert_close(
        periodic_residual(moved, params),
        l2_residual(moved, params),
        rtol=1e-4,
        atol=0,
    )


def test_the_periodic_residual_is_that_of_the_nearest_name():
    """Against all names of the target: turns by a quarter, whose odd ones
    swap the extents."""
    found, target = torch.rand(2, 500, 5, dtype=torch.float64)
    found[:, 4] = 8 * found[:, 4] - 4
    every = []
    for quarter in range(4):
        name = target.clone()
        name[:, 4] += quarter * torch.pi / 2
        if quarter % 2:
            name[:, 2:4] = target[:, [3, 2]]
        off = found - name
        every.append(off[:, :4].square().sum(1) + off[:, 4].sin().square())
    nearest = torch.stack(every).min(0)
    assert len(nearest.indices.unique()) >= 2
    torch.testing.assert_close(
        periodic_residual(found, target), nearest.values
    )
