"""Tests of a check: levels that hold, and the fewest images that reach them, by enumeration."""

import pytest
import torch
from scipy.stats import binom

from smoothinfer.evaluation.audit.chance import (
    least_images,
    more_than,
    positive_mean,
    worse,
)


def first(count, images):
    return torch.arange(images) < count


def test_drops_need_points_and_certainty():
    before = torch.ones(300, dtype=torch.bool)
    assert worse(before, ~first(4, 300))[:3] == (4 / 3, False, True)
    assert worse(before, ~first(10, 300)).fired
    assert worse(~first(10, 300), before)[1:3] == (False, False)


@pytest.mark.parametrize("tests", [1, 2, 4])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01, 0.005])
def test_the_fewest_images_that_can_fire_do_and_one_fewer_cannot(share, tests):
    least = least_images(share, tests)
    assert share**least < 1e-3 / tests <= share ** (least - 1)
    able, short = torch.ones(least).bool(), torch.ones(least - 1).bool()
    assert more_than(able, share, tests=tests)[1:] == (True, False, 0, 0)
    assert more_than(short, share, tests=tests)[1:] == (False, True, least, least - 1)
    if share == 0.5:
        assert worse(able, ~able, tests=tests)[1:] == (True, False, 0, 0)
        assert worse(short, ~short, tests=tests)[1:] == (False, True, least, least - 1)


@pytest.mark.parametrize("images", [1, 2, 3, 5, 10, 20, 50, 300])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01, 0.005])
def test_a_share_that_is_as_allowed_fires_with_less_than_a_thousandth(share, images):
    counts = range(images + 1)
    chances = binom.pmf(list(counts), images, share)
    fires = [more_than(first(count, images), share).fired for count in counts]
    assert sum(chance for chance, fired in zip(chances, fires, strict=True) if fired) < 1e-3


@pytest.mark.parametrize("differ", [1, 9, 10, 11, 40])
def test_attacks_of_equal_strength_differ_by_chance(differ):
    fired = 0.0
    for lost in range(differ + 1):
        before = torch.cat([torch.ones(lost), torch.zeros(differ - lost)]).bool()
        fired += binom.pmf(lost, differ, 0.5) * worse(before, ~before).fired
    assert fired < 1e-3


def test_what_could_not_matter_needs_no_more_images():
    few = first(1, 120)  # one in 120 is less than a point
    assert worse(few, few)[3:] == (0, 0)
    assert worse(first(9, 120), first(9, 120))[3:] == (10, 9)
    assert worse(first(0, 9), first(0, 9))[3:] == (10, 0)
    assert more_than(first(0, 120), 0.05, first(5, 120))[3:] == (0, 0)
    assert more_than(first(0, 120), 0.05, first(10, 120))[3:] == (15, 10)


def test_a_mean_needs_ten_images_and_certainty():
    noise = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert positive_mean(noise + 2, 5.0) == (5.0, True, False, 0, 0)
    assert positive_mean(noise - 2, 5.0)[1:3] == (False, False)
    assert positive_mean(noise - noise.mean() + 0.1, 5.0)[1:3] == (False, True)
    assert positive_mean(torch.ones(9), 5.0)[1:] == (False, False, 10, 9)
    assert positive_mean(torch.ones(10), 5.0).fired
