"""The three numbers of a random model are those of simulated passes."""

import numpy as np
import pyarrow as pa
import pytest

from smoothinfer.errors import InputError
from smoothinfer.evaluation.standing import all_right, standing_of
from smoothinfer.numerics.statistics import mean_share

IMAGES, PASSES = 400, 64


def votes(shares, passes, generator):
    """Hits of the label against one other class, as rows."""
    hits = generator.binomial(passes, shares)
    correct = hits * 2 >= passes
    leader = np.where(correct, hits, passes - hits)
    return pa.table(
        {
            "hits": hits,
            "used": np.full(len(shares), passes),
            "share": leader / passes,
            "correct": correct,
        }
    )


def test_mean_and_worst_are_unbiased():
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.5, 1.0, IMAGES)
    found = [standing_of(votes(shares, PASSES, generator)) for _ in range(400)]
    for values, truth in (
        ([each.mean.value for each in found], shares.mean()),
        ([each.worst.value for each in found], (shares**10).mean()),
    ):
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - truth) < 4 * error


def test_luck_is_the_spread_of_the_vote_over_draws():
    """With two classes the runner-up is known, so the bound is the number itself."""
    generator = np.random.default_rng(1)
    shares = generator.uniform(0.35, 0.65, IMAGES)
    found = [standing_of(votes(shares, PASSES, generator)) for _ in range(400)]
    spread = np.std([each.vote.value for each in found])
    said = np.mean([each.luck for each in found])
    assert 0.75 * spread < said < 1.25 * spread


def test_the_gain_is_vote_minus_mean():
    found = standing_of(votes(np.linspace(0.2, 1.0, 50), PASSES, np.random.default_rng(2)))
    assert found.gain.value == pytest.approx(found.vote.value - found.mean.value)
    assert found.worst.value <= found.mean.value


def test_too_few_passes_and_no_rows_are_refused():
    with pytest.raises(InputError, match="worst of 10 passes"):
        standing_of(votes(np.array([0.5]), 9, np.random.default_rng(0)))
    with pytest.raises(InputError, match="no rows"):
        standing_of(votes(np.array([]), 16, np.random.default_rng(0)))


def test_shared_draws_move_the_vote_more_than_draws_of_its_own():
    passes = 65  # each picks one of two networks, the same one for all images
    rng, votes = np.random.default_rng(0), []
    for _ in range(200):
        right = int(rng.binomial(passes, 0.5))
        rows = {"hits": [right] * 40, "used": [passes] * 40, "correct": [right > passes / 2] * 40}
        share = max(right, passes - right) / passes
        votes.append(standing_of(pa.table(rows | {"share": [share] * 40})))
    spread = np.std([each.vote.value for each in votes])
    assert spread > 3 * np.mean([each.luck for each in votes])
    assert spread < 2 * np.mean([each.shared_luck for each in votes])
    assert max(each.shared_luck for each in votes) <= 0.5


@pytest.mark.parametrize("images", [20, 50, 256])
@pytest.mark.parametrize("world", ["mixed", "rare"])
def test_the_interval_of_ten_in_a_row_covers(world, images):
    rng = np.random.default_rng(0)

    def chances(count):
        if world == "mixed":
            return rng.beta(0.5, 1.5, count)
        return np.where(rng.random(count) < 0.05, 1.0, 0.3)

    truth, covered = (chances(200_000) ** 10).mean(), 0
    for _ in range(300):
        hits = rng.binomial(64, chances(images))
        ten = all_right(hits.astype(float), np.full(images, 64.0))
        found = mean_share(float(ten.mean()), float(ten.std()), images)
        covered += found.low <= truth <= found.high
    assert covered >= 0.9 * 300


def test_equal_numbers_give_no_interval_of_nothing():
    for value in (0.0, 0.5, 0.7, 0.9, 1.0):
        found = mean_share(float(np.mean([value] * 50)), float(np.std([value] * 50)), 50)
        assert found.high - found.low > 0.02
