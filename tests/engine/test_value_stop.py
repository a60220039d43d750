"""Stopping by value: its gain is the expected one, and no fixed number of passes does better."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import smoothinfer as si
from smoothinfer.engine.stopping import VoteSpec
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.value_stop import expected_gain

RULE = si.RULES["prediction"]


def spec(samples=512, classes=3):
    return VoteSpec(RULE, samples, 1e-3, classes)


@pytest.mark.parametrize(("leader", "runner_up", "block"), [(5, 5, 8), (9, 4, 16), (12, 0, 32)])
def test_the_gain_is_what_the_block_brings_on_average(leader, runner_up, block):
    generator = np.random.default_rng(0)
    shares = generator.beta(leader + 1, runner_up + 1, size=400_000)
    more = generator.binomial(block, shares)
    mean = (leader + 1 + more) / (leader + runner_up + 2 + block)
    gains = np.maximum(0, 1 - 2 * mean)
    error = gains.std() / len(gains) ** 0.5
    assert abs(gains.mean() - expected_gain(leader, runner_up, block)) < 4.5 * error + 1e-9


def simulate(shares, rule, samples=512, seed=0):
    """Answers and passes of images whose passes choose classes by ``shares`` (N, K)."""
    generator = np.random.default_rng(seed)
    counts, used = np.zeros_like(shares, dtype=np.int64), np.zeros(len(shares), dtype=np.int64)
    rows, before = np.arange(len(shares)), 0
    for passes in rule.checkpoints():
        counts[rows] += generator.multinomial(passes - before, shares[rows])
        before, used[rows] = passes, passes
        tally = SimpleNamespace(passes=passes, counts=torch.from_numpy(counts))
        rows = rows[~rule.decided(tally, torch.from_numpy(rows)).numpy()]
        if not len(rows):
            break
    return counts.argmax(1), used


@pytest.mark.parametrize("price", [1e-3, 1e-4])
def test_no_fixed_number_of_passes_gains_more_for_the_same_price(price):
    """A world where a class is right as often as passes choose it: accuracy less the price paid."""
    generator = np.random.default_rng(1)
    shares = generator.dirichlet([0.6, 0.3, 0.1], size=40_000)
    labels = (shares.cumsum(1) > generator.random((len(shares), 1))).argmax(1)

    def worth(rule):
        answers, used = simulate(shares, rule)
        each = (answers == labels) - price * used
        return each.mean(), each.std() / len(each) ** 0.5

    fixed = [worth(stopping("fixed", spec(n), len(shares)))[0] for n in (8, 16, 32, 64, 128, 512)]
    value, error = worth(stopping(f"value(price={price})", spec(), len(shares)))
    assert value > max(fixed) - 3 * error


def test_close_and_clear_votes_both_end_soon():
    images = 2000
    for shares, most in (((0.97, 0.02, 0.01), 12), ((0.5, 0.5, 0.0), 200)):
        _, used = simulate(np.tile(shares, (images, 1)), stopping("value", spec(), images))
        assert used.mean() < most
    _, used = simulate(np.tile((0.5, 0.5, 0.0), (images, 1)), stopping("ppr", spec(), images))
    assert used.mean() > 450  # which wants to know the majority of a tie


def test_a_higher_price_buys_fewer_passes():
    shares = np.random.default_rng(2).dirichlet([0.5, 0.5, 0.5], size=3000)
    used = [
        simulate(shares, stopping(f"value(price={price})", spec(), 3000))[1].mean()
        for price in (1e-5, 1e-4, 1e-3, 1e-2)
    ]
    assert used == sorted(used, reverse=True)
    assert used[0] > 3 * used[-1]


def test_a_classifier_stops_by_value(noisy, images):
    smooth = si.SmoothedClassifier(noisy, samples=64, seed=0)
    answer = smooth.predict(images, stop="value(price=0.01)")
    assert (answer.samples <= 64).all()
    assert answer.samples.float().mean() < 64


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("value(price=0)", "price must be above 0"),
        ("value(prize=1)", "unknown option"),
        ("guess", "unknown stop"),
    ],
)
def test_what_does_not_suit_is_refused(noisy, images, stop, message):
    with pytest.raises(si.InputError, match=message):
        si.SmoothedClassifier(noisy, 16).predict(images, stop=stop)
