"""Norm balls: every point is within the radius and within the range of pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smoothinfer as si


@pytest.mark.parametrize("name", si.BALLS)
@settings(max_examples=30, deadline=None)
@given(radius=st.floats(0, 1), seed=st.integers(0, 1000))
def test_every_ball_keeps_its_promises(name, radius, seed):
    ball = si.BALLS[name](radius)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    for points in (ball.random(images, generator), ball.project(torch.randn(4, 3, 5, 5), images)):
        assert (ball.distance(points, images) <= radius + 1e-5).all()
        assert points.min() >= 0
        assert points.max() <= 1
        again = ball.project(points, images)
        assert torch.allclose(again, points, atol=1e-6)  # projecting twice changes nothing
    assert torch.equal(ball.project(images, images), images)
    assert not ball.ascend(torch.zeros(2, 3, 5, 5)).any()
    assert torch.equal(ball.project(torch.full_like(images, math.nan), images), images)


def test_linf_random_points_fill_the_cube():
    images = torch.full((1, 1, 100, 100), 0.5)
    steps = si.Linf(0.1).random(images, torch.Generator().manual_seed(0)) - 0.5
    # U(-0.1, 0.1) has standard deviation 0.1 / sqrt(3); its estimate from 10,000 has error ~0.45 %
    assert steps.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=4 * 0.0045)


@pytest.mark.parametrize("name", si.BALLS)
def test_no_images_have_no_random_points(name):
    assert si.BALLS[name](0.5).random(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("ball", [si.Linf, si.L2])
@pytest.mark.parametrize("radius", [-1, -1.0, math.nan, math.inf, "8/255"])
def test_a_radius_that_is_no_distance_is_refused(radius, ball):
    with pytest.raises(si.InputError, match="radius"):
        ball(radius)


def test_a_radius_in_grey_levels_is_refused():
    with pytest.raises(si.InputError, match="a radius of 8 is wider than the pixels' range"):
        si.Linf(8)


def test_a_radius_wider_than_any_image_is_refused():
    assert si.L2(1e5).radius == 1e5
    with pytest.raises(si.InputError, match="wider than any image"):
        si.L2(1e39)
