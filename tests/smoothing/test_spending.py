"""Boundaries of exact tests: the chance to cross one is computed, not bounded."""

import itertools
from math import comb

import numpy as np
import pytest
from scipy.stats import norm

from smoothinfer.engine.stopping import growing
from smoothinfer.smoothing.spending import least_hits, parts_of_alpha
from tests.smoothing.test_radii_test import SIGMA, simulate


def chance_to_cross(boundary, looks, share):
    """The chance by enumeration of the hits of every block."""
    blocks = np.diff([0, *looks])
    total = 0.0
    for hits in itertools.product(*(range(block + 1) for block in blocks)):
        if (np.cumsum(hits) >= boundary).any():
            ways = np.prod([comb(int(b), h) for b, h in zip(blocks, hits, strict=True)])
            total += ways * share ** sum(hits) * (1 - share) ** (looks[-1] - sum(hits))
    return total


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_the_chance_of_a_false_claim_is_alpha_and_hardly_less(share, alpha):
    looks = [6, 12, 18, 24]
    boundary = least_hits(share, looks, alpha)
    assert chance_to_cross(boundary, looks, share) <= alpha
    assert chance_to_cross(boundary, looks, share - 0.1) <= alpha
    lower = boundary - np.array([0, 0, 0, 1])  # what the last look could not spend
    assert chance_to_cross(lower, looks, share) > alpha


@pytest.mark.parametrize("share", [0.5, 0.933])
def test_long_runs_cross_as_rarely_as_computed(share):
    looks, alpha, runs = growing(20, 20_000, 1.25), 0.02, 20_000
    boundary = least_hits(share, looks, alpha)
    blocks = np.diff([0, *looks])
    hits = np.random.default_rng(0).binomial(blocks, share, size=(runs, len(looks))).cumsum(1)
    crossed = (hits >= boundary).any(1).mean()
    assert abs(crossed - alpha) < 4 * (alpha / runs) ** 0.5 + 0.1 * alpha


def test_the_parts_are_all_of_alpha_and_no_vote_proves_certainty():
    assert parts_of_alpha(40).sum() == pytest.approx(1)
    assert (least_hits(1.0, [10, 20], 0.05) > [10, 20]).all()


def test_spending_takes_fewer_passes_than_a_confidence_sequence_and_proves_more():
    """Shares whose radii lie 0.08 or more from those asked for; then one close to a radius."""
    far = norm.cdf(np.array([0.08, 0.17, 0.33, 0.42, 0.58, 0.67, 0.85]) / SIGMA)
    used, proved = {}, {}
    for kind in ("spending", "betting"):
        runs = [
            simulate((share, 1 - share), kind, 1e-3, samples=100_000, images=200, seed=at)
            for at, share in enumerate(far)
        ]
        used[kind] = np.mean([each[1].mean() for each in runs])
        near = norm.cdf(0.27 / SIGMA)
        found, _, _ = simulate((near, 1 - near), kind, 1e-3, samples=10_000, images=1000)
        proved[kind] = (found == 0.25).mean()
    assert used["spending"] < 0.95 * used["betting"]
    assert proved["spending"] > proved["betting"] + 0.2
