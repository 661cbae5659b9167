import pytest
import torch

from mmaib.functional import draw_gaussian
from mmaib.sampling import draws
from mmaib.sampling.draws import Draws

MEAN, STD = torch.zeros(2, 3), torch.ones(2, 3)


def test_outside_everything_is_at_the_mean():
    assert draws.current() == Draws()
    assert draws.draw_maps(MEAN, STD) is MEAN
    assert draws.draw_latents(MEAN, None) is MEAN
    assert draws.latent_noise(MEAN) is None


def test_inside_maps_and_latents_are_drawn_from_one_generator():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with Draws(attention=4, latent=2, seed=7).open():
        maps = draws.draw_maps(MEAN, STD)
        latents = draws.draw_latents(MEAN, STD)
        noise = draws.latent_noise(MEAN)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(maps, draw_gaussian(MEAN, STD, 4, generator))
    assert torch.equal(latents, draw_gaussian(MEAN, STD, 2, generator))
    expected = torch.randn(2, 2, 3, generator=generator).flatten(0, 1)
    assert torch.equal(noise, expected)
    assert torch.equal(state, torch.get_rng_state())


def test_without_a_seed_the_global_generator_draws():
    with Draws(latent=1).open():
        torch.manual_seed(3)
        drawn = draws.draw_latents(MEAN, STD)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randn(2, 3))


def test_each_opening_repeats():
    drawn = []
    for _ in range(2):
        with Draws(attention=1, seed=0).open():
            drawn.append(draws.draw_maps(MEAN, STD))
    assert torch.equal(*drawn)


def test_a_mean_keeps_the_std_in_the_graph():
    std = STD.clone().requires_grad_()
    mean = draws.draw_maps(MEAN, std)
    assert torch.equal(mean, MEAN)
    mean.sum().backward()
    assert torch.equal(std.grad, torch.zeros(2, 3))


def test_a_teacher_without_gradient_inside_a_students_step_is_at_its_mean():
    with Draws(attention=2, latent=2).open():
        with torch.no_grad():
            assert draws.current() == Draws()
            assert draws.draw_maps(MEAN, STD) is MEAN
        assert draws.current().attention == 2
    with torch.no_grad(), Draws(attention=2).open():
        assert draws.current().attention == 2


def test_an_inner_opening_counts_and_an_error_closes_it():
    def fail():
        with Draws(attention=1).open():
            assert draws.current().attention == 1
            raise RuntimeError('inside')

    with Draws(attention=3).open():
        with pytest.raises(RuntimeError, match='inside'):
            fail()
        assert draws.current().attention == 3
    assert draws.current() == Draws()


def test_the_same_draws_inside_others_close_in_their_order():
    with Draws(attention=1).open(), Draws(attention=2).open():
        with Draws(attention=1).open():
            assert draws.current().attention == 1
        assert draws.current().attention == 2


def test_the_mean_over_draws():
    x = torch.arange(12.0).view(6, 2)
    expected = (x[:2] + x[2:4] + x[4:]) / 3
    assert torch.equal(draws.mean_over_draws(x, 2), expected)
    assert draws.mean_over_draws(x, 6) is x
    assert draws.mean_over_draws(x[:0], 0).shape == (0, 2)


def test_how_many_draws_there_are():
    counts = [
        Draws(*pair).count
        for pair in ((None, None), (3, None), (None, 4), (3, 4), (1, 1))
    ]
    assert counts == [1, 3, 4, 12, 1]


@pytest.mark.parametrize(
    ('field', 'value', 'expected'),
    [
        ('test_draws', 'mean', Draws()),
        ('train_draws', 'mean', Draws()),
        ('train_draws', dict(attention=2), Draws(2)),
        ('train_draws', dict(attention='mean', latent=3), Draws(None, 3)),
        ('test_draws', dict(attention=4, latent=1), Draws(4, 1, seed=0)),
        ('test_draws', dict(latent=1, seed=5), Draws(None, 1, seed=5)),
        ('test_draws', Draws(1), Draws(1)),
    ],
)
def test_from_a_config(field, value, expected):
    assert Draws.from_config(field, value) == expected


@pytest.mark.parametrize(
    ('field', 'value', 'match'),
    [
        ('test_draws', 4, "test_draws must be 'mean' or a dict.*got 4"),
        ('test_draws', None, 'got None'),
        ('test_draws', dict(sed=1), "got {'sed': 1}"),
        ('train_draws', dict(latent=1, seed=1), 'train_draws must be'),
        ('train_draws', dict(latent=0), 'train_draws.latent.*>= 1, got 0'),
        ('test_draws', dict(attention=True), 'attention must be.*got True'),
        ('test_draws', dict(latent=1, seed=-1), 'test_draws.seed must be'),
    ],
)
def test_what_does_not_fit_is_named(field, value, match):
    with pytest.raises(ValueError, match=match):
        Draws.from_config(field, value)


@pytest.mark.parametrize(
    ('asked', 'kept'),
    [
        (dict(attention=2), False),
        (dict(attention=2, uncertainty=True), True),
        (dict(attention=2, uncertainty=True, rois='all'), False),
        (dict(latent=2, uncertainty=True), False),
        (dict(latent=2, rois='kept'), True),
    ],
)
def test_rois_are_kept_by_default_where_maps_have_an_uncertainty(asked, kept):
    assert Draws.from_config('test_draws', asked).kept_rois is kept
