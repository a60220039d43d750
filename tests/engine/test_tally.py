"""One tally for all: prediction and evaluation count alike, however the passes come."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.stopping import Fixed, VoteSpec
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.tally import Tally, count_first, count_votes, final_tally, vote
from smoothinfer.engine.voting import rule_of
from smoothinfer.numerics.randomness import derive_seed
from tests.conftest import small_net

PASSES, CLASSES = 40, 3
RULES = [*si.RULES, "ranks:1,0.3"]


def suits(stop, rule):
    if stop == "ppr":
        return rule == "prediction"
    return stop != "betting" or rule_of(rule).span < float("inf")


PAIRS = [(rule, stop) for rule in RULES for stop in si.STOPS if suits(stop, rule)]


def linear_net():
    with si.isolated_rng(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES), nn.Dropout())


def noisy_net():
    return si.NoisyModel(linear_net(), si.Gaussian(0.3), si.PNI(alpha=0.5)).eval()


def net_with_dropout():
    noisy = si.NoisyModel(linear_net(), si.Gaussian(0.3)).eval()
    noisy.module[2].train()  # left on: a pass depends on an image's place in its batch
    return noisy


def small_noisy_net():
    return si.NoisyModel(small_net(), si.Gaussian(0.3), si.CNI(rank=1)).eval()


MODELS = {"noise": (noisy_net, 150), "dropout": (net_with_dropout, 60)}


def pictures(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("rule", "stop"), PAIRS)
def test_prediction_and_evaluation_give_the_same_verdicts(rule, stop, model):
    make, count = MODELS[model]
    noisy, images, labels = make(), pictures(count), torch.arange(count) % CLASSES
    seeded = si.SmoothedClassifier(noisy, PASSES, rule, seed=derive_seed(5, "verdict"))
    answer = seeded.predict(images, stop=stop, delta=0.05)
    measured = si.SmoothedClassifier(noisy, PASSES, rule)
    rows = si.evaluate(measured, (images, labels), stop=stop, delta=0.05, seed=5)
    assert rows["image"].to_pylist() == list(range(count))
    assert rows["predicted"].to_pylist() == answer.labels.tolist()
    hits = answer.counts.gather(1, labels[:, None]).squeeze(1)
    assert rows["hits"].to_pylist() == hits.tolist()
    assert rows["used"].to_pylist() == answer.samples.tolist()
    assert torch.equal(answer.counts.sum(1), answer.samples)
    if stop == "fixed":
        assert set(answer.samples.tolist()) == {PASSES}
    elif rule == "prediction":
        assert len(set(answer.samples.tolist())) > 1  # some votes are decided sooner


class Given:
    """Passes with given logits (S, N, K) of images that hold their own row, some at a time."""

    by_place = False

    def __init__(self, logits, together):
        self.logits, self.together = logits, together
        self.images = torch.arange(logits.shape[1]).view(-1, 1, 1, 1)

    def blocks(self, images, first, samples):
        yield from self.logits[first : first + samples, images.flatten()].split(self.together)


@pytest.fixture
def logits():
    """Images from hopeless to clear, so that votes end at different numbers of passes."""
    generator = torch.Generator().manual_seed(0)
    clear = torch.linspace(0, 4, 33)[:, None] * torch.tensor([1.0, 0.0, 0.5])
    return clear + torch.randn(PASSES, 33, CLASSES, generator=generator)


@pytest.mark.parametrize(("rule", "stop"), PAIRS)
def test_a_tally_does_not_depend_on_how_many_passes_come_at_once(rule, stop, logits):
    counted, tallies = rule_of(rule), []
    for together in (1, 2, 7, PASSES):
        source = Given(logits, together)
        spec = VoteSpec(counted, PASSES, 0.05, CLASSES)
        criterion = stopping(stop, spec, logits.shape[1])
        tallies.append(final_tally(source, source.images, [counted], criterion))
    first, *others = tallies
    for other in others:
        for name in ("used", "counts", "decided"):
            assert torch.equal(getattr(other, name), getattr(first, name))
        assert torch.equal(other.sums(counted).totals(), first.sums(counted).totals())
        assert torch.equal(other.prediction(counted).scores, first.prediction(counted).scores)


@pytest.mark.parametrize("together", [1, 3, PASSES])
@pytest.mark.parametrize("stop", ["fixed", "exact"])
def test_snapshots_are_what_separate_runs_give(stop, together, logits):
    rules = {name: rule_of(name) for name in RULES}
    source, counts = Given(logits, together), [1, 5, PASSES]

    def run(samples):
        return vote(source, source.images, rules, samples, classes=CLASSES, stop=stop)

    found = run(counts)
    assert set(found) == {(rule, samples) for rule in rules for samples in counts}
    for samples in counts:
        for key, alone in run([samples]).items():
            for field, value in vars(alone).items():
                assert torch.equal(getattr(found[key], field), value), (key, field)
    if stop == "fixed":
        assert found["prediction", 5].samples.tolist() == [5] * logits.shape[1]


@pytest.mark.parametrize("make", [noisy_net, net_with_dropout, small_noisy_net])
def test_snapshots_of_a_model_are_what_separate_runs_give(make):
    noisy, images = make(), pictures(7)
    smooth = si.SmoothedClassifier(noisy, seed=0)
    rules, counts = {name: rule_of(name) for name in RULES}, [1, 5, PASSES]

    def run(samples):
        return vote(smooth.engine(images, 0), images, rules, samples, classes=CLASSES)

    found = run(counts)
    for samples in counts:
        for key, alone in run([samples]).items():
            assert torch.equal(found[key].counts, alone.counts)
            assert torch.equal(found[key].labels, alone.labels)
            assert torch.allclose(found[key].scores, alone.scores, atol=1e-5)


def test_the_tally_at_a_snapshot_holds_so_many_passes_of_every_image(logits):
    source, seen, advanced = Given(logits, 7), [], []
    run = count_votes(source, source.images, [], Fixed(PASSES), [1, 5, PASSES], advanced.append)
    for tally in run:
        assert torch.equal(tally.counts.sum(1), tally.used)
        assert set(tally.used.tolist()) == {tally.passes}
        seen.append(tally.passes)
    assert seen == [1, 5, PASSES]
    assert sum(advanced) == PASSES


def test_counts_are_the_first_classes_of_the_passes(logits):
    source = Given(logits, 3)
    counts = count_first(source, source.images, 11)
    wanted = nn.functional.one_hot(logits[:11].argmax(2), CLASSES).sum(0)
    assert torch.equal(counts, wanted)


def test_images_may_be_counted_in_any_order(logits):
    rule = rule_of("soft")
    whole, parts = (Tally(33, [rule], torch.device("cpu")) for _ in range(2))
    whole.add(torch.arange(33), logits)
    for rows in torch.randperm(33).split(10):
        parts.add(rows, logits[:, rows])
    assert torch.equal(parts.counts, whole.counts)
    assert torch.equal(parts.sums(rule).totals(), whole.sums(rule).totals())


def test_a_vote_that_cannot_be_held_is_refused(logits):
    source, rules = Given(logits, 1), {"soft": rule_of("soft")}
    for samples, how, message in (
        ([4], {"classes": 1}, "at least 2 classes"),
        ([4], {"stop": "early"}, "unknown stop 'early'"),
        ([4], {"stop": "ppr"}, "counts whole votes"),
        ([4], {"delta": 1.0}, "delta"),
        ([0, 4], {}, "samples must be at least 1"),
    ):
        with pytest.raises(si.InputError, match=message):
            vote(source, source.images, rules, samples, **{"classes": CLASSES} | how)
