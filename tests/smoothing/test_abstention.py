"""How sure an answer is: its share, the interval of it, and abstention at a risk that holds."""

import numpy as np
import pytest
import torch

import smoothinfer as si
from smoothinfer.engine.prediction import Prediction


def answers(counts, labels=None):
    counts = torch.as_tensor(counts)
    labels = counts.argmax(1) if labels is None else torch.as_tensor(labels)
    passes, no = counts.sum(1), torch.zeros(len(counts), dtype=torch.bool)
    return Prediction(labels, counts, passes, counts.double().log(), ~no, no)


def test_share_and_runner_up_are_of_the_passes():
    found = answers([[6, 3, 1], [0, 5, 5], [10, 0, 0]])
    assert found.share.tolist() == pytest.approx([0.6, 0.5, 1.0])
    assert found.runner_up.tolist() == [1, 2, 1]
    assert not found.abstained.any()


@pytest.mark.parametrize("share", [0.35, 0.8, 0.99])
def test_the_interval_holds_the_true_share_as_often_as_it_says(share):
    generator = np.random.default_rng(0)
    images, passes = 10_000, 64
    hits = generator.binomial(passes, share, size=images)
    rest = passes - hits
    counts = np.stack([hits, rest // 2, rest - rest // 2], 1)
    found = answers(counts, np.zeros(images, dtype=np.int64)).share_interval(0.9)
    inside = ((found[:, 0] <= share) & (share <= found[:, 1])).double().mean()
    assert inside >= 0.9 - 3 * (0.09 / images) ** 0.5
    assert (found[:, 0] < found[:, 1]).all()


def test_intervals_end_at_0_and_1():
    low, high = answers([[8, 0], [0, 8]], [0, 0]).share_interval().T
    assert high[0] == 1
    assert low[1] == 0
    assert 0.5 < low[0] < high[0]


def world(images, seed):
    """Shares of passes, and answers that are right as often as their share says, or less."""
    generator = np.random.default_rng(seed)
    shares = np.round(generator.beta(3, 1, size=images) * 64) / 64
    return shares, generator.random(images) < 0.3 + 0.69 * shares


@pytest.mark.parametrize("risk", [0.05, 0.15])
def test_the_risk_of_the_answers_given_holds(risk):
    """The threshold of 500 images fails on new ones in no more than 5 % of 400 trials."""
    shares, right = world(400_000, 999)
    failures, given = 0, 0
    for seed in range(400):
        try:
            least = si.Abstention(*world(2000, seed)).threshold(risk)
        except si.InputError:
            continue  # an answer is refused: no risk is run
        kept = shares >= least
        failures += (~right[kept]).mean() > risk
        given += 1
    assert failures / 400 <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert given > 100


def test_one_error_among_the_surest_answers_ends_nothing():
    shares, right = np.linspace(0, 1, 10_000), np.ones(10_000, dtype=bool)
    right[-50] = right[-90] = False
    assert si.Abstention(shares, right).threshold(0.01) < 0.1


def test_a_lower_risk_needs_a_higher_share():
    learned = si.Abstention(*world(20_000, 0))
    shares = [learned.threshold(risk) for risk in (0.05, 0.1, 0.2)]
    assert shares == sorted(shares, reverse=True)


def test_the_curve_falls_from_the_surest_answers_to_all():
    learned = si.Abstention(*world(5000, 1))
    curve = learned.curve()
    assert curve[-1]["coverage"] == 1
    assert curve[-1]["accuracy"] == pytest.approx(learned.right.mean())
    assert curve[0]["accuracy"] > curve[-1]["accuracy"]


def test_a_classifier_abstains_where_its_share_is_small(noisy, images, labels):
    smooth = si.SmoothedClassifier(noisy, samples=64, seed=0)
    with pytest.raises(si.InputError, match="abstain needs a calibration"):
        smooth.predict(images, abstain=0.1)
    shares = np.linspace(0, 1, 2000)
    smooth.abstention = si.Abstention(shares, shares > 0.6)
    least = smooth.abstention.threshold(0.05)
    found = smooth.predict(images, abstain=0.05)
    assert torch.equal(found.abstained, found.share < least)
    assert torch.equal(found.labels, smooth.predict(images).labels)
    learned = si.learn_abstention(smooth, (images, labels))
    assert np.allclose(learned.shares, smooth.predict(images).share)


@pytest.mark.parametrize(
    ("shares", "right", "risk", "message"),
    [
        (np.ones(5), np.ones(5, dtype=bool), 0.01, "do not show a risk"),
        (np.ones(500), np.zeros(500, dtype=bool), 0.5, "do not show a risk"),
        (np.ones(500), np.ones(500, dtype=bool), 0.0, "risk must be above 0"),
        (np.ones(0), np.ones(0, dtype=bool), 0.1, "at least one"),
        (np.ones(3), np.ones(2, dtype=bool), 0.1, "as many shares"),
    ],
)
def test_what_cannot_be_shown_is_refused(shares, right, risk, message):
    with pytest.raises(si.InputError, match=message):
        si.Abstention(shares, right).threshold(risk)
