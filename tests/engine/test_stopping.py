"""Stopping rules decide as early and as rightly as they say."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.stopping import Betting, VoteSpec, ppr_evidence
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.tally import final_tally
from smoothinfer.engine.voting import RULES

PUBLISHED = {0: 18, 1: 22, 2: 25, 5: 33, 10: 44, 20: 62, 50: 110, 100: 181}


class Coins(nn.Module):
    """A random network whose top class is drawn from probabilities that the image carries."""

    def forward(self, images):
        shares = images.flatten(1)
        draw = torch.rand(len(images), 1)
        return nn.functional.one_hot((shares.cumsum(1) < draw).sum(1), shares.shape[1]).float() * 3


def images_of(shares, count):
    return torch.tensor(shares).view(1, 1, 1, -1).expand(count, -1, -1, -1).clone()


def needed(runner_up, classes, delta=1e-3, **how):
    """The votes of the leader that decide against those of the runner-up."""
    enough = np.log((classes - 1) / delta)
    leader = np.asarray(runner_up) + np.arange(1, 300).reshape(-1, *[1] * np.ndim(runner_up))
    return leader[0] + (ppr_evidence(leader, runner_up, **how) < enough).sum(0)


def test_ppr_needs_the_published_numbers_of_votes():
    runner_up = np.array(list(PUBLISHED))
    assert needed(runner_up, 10, one_sided=False).tolist() == list(PUBLISHED.values())
    assert needed(0, 100, one_sided=False) == 22
    assert needed(0, 10) == 17
    every = np.arange(300)
    assert (needed(every, 10) <= needed(every, 10, one_sided=False)).all()


def test_evidence_is_the_integral_it_stands_for():
    for a, b in ((3, 1), (17, 0), (30, 12)):
        p = np.linspace(0, 1, 200_001)
        ratio = (2 * p) ** a * (2 * (1 - p)) ** b
        for one_sided in (False, True):
            inside = p >= 0.5 if one_sided else p >= 0
            truth = np.trapezoid(np.where(inside, ratio, 0), p) * (2 if one_sided else 1)
            assert ppr_evidence(a, b, one_sided) == pytest.approx(math.log(truth), abs=1e-4)


def simulate(images, shares, delta, cap=512):
    """Share of simulated images that PPR decides for another class than the most likely one."""
    generator = np.random.default_rng(0)
    ppr = stopping("ppr", VoteSpec(RULES["prediction"], cap, delta, len(shares)), images)
    counts = torch.zeros(images, len(shares), dtype=torch.int64)
    active, passes = torch.arange(images), 0
    wrong = used = 0
    for checkpoint in ppr.checkpoints():
        votes = generator.multinomial(checkpoint - passes, shares, size=len(active))
        counts[active] += torch.from_numpy(votes)
        passes = checkpoint
        tally = SimpleNamespace(passes=passes, counts=counts)
        decided = ppr.decided(tally, active)
        wrong += int((counts[active[decided]].argmax(1) != 0).sum())
        used += passes * int(decided.sum())
        active = active[~decided]
    return wrong / images, (used + cap * len(active)) / images


@pytest.mark.parametrize(
    ("shares", "delta"),
    [((0.52, 0.48), 0.05), ((0.4, 0.3, 0.3), 0.05), ((0.3, 0.25, 0.25, 0.2), 0.1)],
)
def test_ppr_errs_no_more_than_delta(shares, delta):
    images = 50_000
    error, _ = simulate(images, shares, delta)
    assert error <= delta + 3 * math.sqrt(delta * (1 - delta) / images)
    assert error > 0  # a case hard enough to err at all


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.52, 0.48), (0.35, 0.33, 0.32), (0.3, *[0.07] * 10)])
def test_ppr_errs_no_more_than_delta_over_a_million(shares):
    error, _ = simulate(1_000_000, shares, 1e-3)
    assert error <= 1e-3 + 3 * math.sqrt(1e-3 / 1_000_000)


def test_stopping_too_early_would_be_found_out():
    """With evidence for 1/10 of the odds the same simulation errs too often."""
    images, delta = 50_000, 0.05
    error, _ = simulate(images, (0.52, 0.48), 10 * delta)
    assert error > delta + 3 * math.sqrt(delta * (1 - delta) / images)


def test_ppr_saves_passes():
    _, used = simulate(2000, (0.9, 0.1), 1e-3)
    assert used < 64


@pytest.mark.parametrize("stop", si.STOPS)
@pytest.mark.parametrize("rule", si.RULES)
def test_every_stop_suits_a_rule_or_is_refused(stop, rule):
    images = images_of([0.9, 0.06, 0.04], 20)
    smooth = si.SmoothedClassifier(Coins(), samples=96, rule=rule, seed=0)
    unfit = (stop == "ppr" and rule != "prediction") or (stop == "betting" and rule == "logits")
    if unfit:
        with pytest.raises(si.InputError, match=r"betting|bound"):
            smooth.predict(images, stop=stop)
        return
    answer = smooth.predict(images, stop=stop)
    assert torch.equal(answer.counts.sum(1), answer.samples)
    assert (answer.samples <= 96).all()
    assert (answer.labels == 0).all()
    assert answer.decided.dtype == torch.bool
    if stop == "fixed" or (stop == "exact" and rule == "logits"):  # votes without a bound
        assert (answer.samples == 96).all()
    if stop in ("fixed", "exact"):
        assert answer.decided.all()


@pytest.mark.parametrize("rule", ["prediction", "weighted", "soft", "top_two", "ranks:3,1"])
@pytest.mark.parametrize("samples", [1, 2, 33, 64])
def test_exact_gives_the_answer_of_all_passes(rule, samples):
    shares = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    images = (shares / shares.sum(1, keepdim=True)).view(300, 1, 1, 4)
    smooth = si.SmoothedClassifier(
        si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.2)).eval(), samples, rule, seed=0
    )
    exact, fixed = (smooth.predict(images, stop=stop) for stop in ("exact", "fixed"))
    assert torch.equal(exact.labels, fixed.labels)
    if samples > 2 and rule == "prediction":
        assert exact.samples.float().mean() < samples


def test_exact_gives_the_answer_of_all_passes_with_dropout_left_on():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    noisy = si.NoisyModel(net).eval()
    net[1].train()
    images = torch.rand(64, 1, 8, 8)
    smooth = si.SmoothedClassifier(noisy, 65, seed=0)
    assert torch.equal(smooth.predict(images, stop="exact").labels, smooth.predict(images).labels)


def test_a_hopeless_image_stays_undecided():
    smooth = si.SmoothedClassifier(Coins(), samples=64, seed=0)
    answer = smooth.predict(images_of([0.5, 0.5], 10), stop="ppr")
    assert not answer.decided.all()
    assert (answer.samples[~answer.decided] == 64).all()


def test_leaving_images_do_not_change_the_others():
    noisy = si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.3)).eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(50, 1, 1, 4, generator=generator)
    smooth = si.SmoothedClassifier(noisy, samples=128, seed=0)
    together = smooth.predict(images, stop="ppr")
    alone = smooth.predict(images[7:9], stop="ppr")
    assert torch.equal(together.counts[7:9], alone.counts)


class OwnNoise:
    """Passes in which every image has noise of its own."""

    by_place = True

    def blocks(self, images, first, samples):
        generator = torch.Generator().manual_seed(first)
        for _ in range(samples):
            yield images.flatten(1)[None] + torch.randn(images.shape[0], 3, generator=generator)


def test_betting_decides_soft_votes_rightly():
    count, delta = 2000, 0.1
    spec = VoteSpec(RULES["soft"], 128, delta, 3)
    betting = stopping("betting", spec, count)
    images = images_of([0.55, 0.45, 0.45], count)
    answer = final_tally(OwnNoise(), images, [spec.rule], betting).prediction(spec.rule)
    wrong = (answer.decided & (answer.labels != 0)).double().mean()
    assert wrong <= delta + 3 * math.sqrt(delta * (1 - delta) / count)
    clear = images_of([2.5, 0.0, 0.0], 100)
    answer = final_tally(OwnNoise(), clear, [spec.rule], stopping("betting", spec, 100))
    assert answer.decided.all()  # it does decide
    assert answer.used.float().mean() < 64


class PeekingBetting(Betting):
    """Wrong on purpose: bets on the class that leads after the pass itself."""

    def observe(self, rows, block):
        for logits in block:
            before = self.sums.clone()
            self.sums[rows] += self.spec.rule.votes(logits).double()
            super().observe(rows, logits[None])
            self.sums = before
            self.sums[rows] += self.spec.rule.votes(logits).double()


@pytest.mark.parametrize("rule", ["prediction", "weighted", "soft"])
def test_a_bet_against_the_likeliest_class_gains_nothing(rule):
    """In a tie of all classes each is a likeliest one: no bettor gains on the average."""
    count, classes = 3000, 3
    spec = VoteSpec(si.RULES[rule], 24, 0.1, classes)
    means = []
    for kind in (Betting, PeekingBetting):
        betting = kind(spec, count)
        betting.observe(torch.arange(count), torch.randn(24, count, classes, generator=seeded(0)))
        capital = betting.capital.exp().mean(0)
        means.append((capital.mean(0), capital.std(0) / math.sqrt(count)))
    (honest, error), (peeking, _) = means
    assert (honest <= 1 + 4 * error).all()
    assert (peeking > 1 + 4 * error).all()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_the_capital_is_kept_when_the_leader_changes():
    """Class 1 leads at first, then class 0: evidence against class 2 comes from both."""
    first, second = torch.eye(3)[1].expand(6, 1, 3), torch.eye(3)[0].expand(20, 1, 3)
    betting = Betting(VoteSpec(RULES["prediction"], 64, 0.01, 3), 1)
    rows = torch.arange(1)
    betting.observe(rows, first)
    early = betting.capital.exp().mean(0)[0]
    assert early[1] == 1  # nobody bets against the leader
    assert early[0] == early[2] > 1
    betting.observe(rows, second)
    late = betting.capital.exp().mean(0)[0]
    assert late[2] > early[2]
    assert late[0] < early[0]  # bets on class 1 lost while it still led
    assert late[1] > 100


def test_betting_keeps_a_state_in_proportion_to_the_classes():
    def size(classes):
        betting = Betting(VoteSpec(RULES["soft"], 64, 0.01, classes), 7)
        return sum(each.numel() for each in vars(betting).values() if torch.is_tensor(each))

    assert size(2000) <= 10.1 * size(200)


@pytest.mark.parametrize("rule", ["prediction", "weighted", "soft", "ranks:1,0.3"])
@pytest.mark.parametrize("stop", si.STOPS)
def test_a_thousand_classes_are_no_burden(rule, stop):
    if stop == "ppr" and rule != "prediction":
        return
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 1000))
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    images = torch.rand(4, 3, 8, 8, generator=seeded(0))
    started = time.perf_counter()
    answer = si.SmoothedClassifier(noisy, 64, rule, seed=0).predict(images, stop=stop)
    assert answer.scores.shape == (4, 1000)
    assert time.perf_counter() - started < 5  # a tenth of a second by itself


@pytest.mark.parametrize("stop", ["exact", "ppr", "betting"])
def test_checkpoints_of_the_longest_vote_are_few(stop):
    spec = VoteSpec(RULES["prediction"], 10**9, 1e-3, 10)
    points = stopping(stop, spec, 1).checkpoints()
    assert points == sorted(set(points))
    assert points[-1] == 10**9
    assert len(points) < 2000


def test_ppr_decides_a_vote_of_any_length():
    spec = VoteSpec(RULES["prediction"], 10**9, 1e-3, 10)
    counts = torch.tensor([[400_000_000, 399_000_000, 0], [400_000_000, 399_999_990, 0]])
    tally = SimpleNamespace(passes=int(counts[0].sum()), counts=counts)
    assert stopping("ppr", spec, 2).decided(tally, torch.arange(2)).tolist() == [True, False]


def test_bad_stops_are_refused():
    smooth = si.SmoothedClassifier(Coins(), samples=8)
    images = images_of([0.5, 0.5], 2)
    with pytest.raises(si.InputError, match="betting, exact, fixed, ppr"):
        smooth.predict(images, stop="early")
    with pytest.raises(si.InputError, match="delta"):
        smooth.predict(images, stop="ppr", delta=0.0)


def test_a_vote_too_short_to_be_decided_is_undecided():
    smooth = si.SmoothedClassifier(
        si.NoisyModel(torch.nn.Flatten(), inputs=si.Gaussian(0.01)).eval(), samples=4, seed=0
    )
    answer = smooth.predict(torch.rand(3, 1, 2, 2), stop="ppr")
    assert answer.samples.tolist() == [4, 4, 4]
    assert not answer.decided.any()


@pytest.mark.parametrize("stop", ["exact", "ppr", "betting", "value"])
def test_a_vote_that_stops_is_the_same_alone_and_in_a_batch(stop):
    """Alone, more passes run at once than a checkpoint needs: they must not count."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    noisy = si.NoisyModel(module, inputs=si.Gaussian(1.0)).eval()
    smooth = si.SmoothedClassifier(noisy, 200, seed=5, precision="fp32")
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    together = smooth.predict(images, stop=stop)
    assert len(together.samples.unique()) > 1
    for at in range(0, 40, 5):
        alone = smooth.predict(images[at : at + 1], stop=stop)
        assert torch.equal(alone.counts, together.counts[at : at + 1])
        assert torch.equal(alone.samples, together.samples[at : at + 1])
