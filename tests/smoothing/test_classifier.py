import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import smoothinfer as si
from smoothinfer.engine.members import member_of
from smoothinfer.engine.voting import Tally, by_rank, rule_of
from tests.conftest import small_net

LOGITS = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0))  # (S, N, K)


def scores_of(rule, draws=LOGITS):
    tally = Tally(rule)
    for logits in draws:
        tally.add(logits)
    return tally.scores()


def test_vote_shares_in_a_half_space_are_phi(half_space):
    sigma, samples = 0.1, 4096
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.15 * (torch.rand(200, 1, 4, 4, generator=generator) - 0.5)
    smooth = si.SmoothedClassifier(
        si.NoisyModel(half_space, inputs=si.Gaussian(sigma)).eval(), samples, seed=0
    )
    share = smooth.predict(images).counts[:, 1] / samples
    truth = torch.special.ndtr(half_space.distance(images) / sigma)
    assert 0.05 < truth.min() < 0.4 < 0.6 < truth.max() < 0.95  # a test that could fail
    error = (truth * (1 - truth) / samples).sqrt()
    assert ((share - truth).abs() < 4 * error).all()
    wrong = torch.special.ndtr(half_space.distance(images) / (1.3 * sigma))
    assert ((share - wrong).abs() > 4 * error).any()


@pytest.mark.parametrize("rule", si.RULES)
def test_every_rule_keeps_its_promises(rule):
    scores = scores_of(rule)
    assert scores.shape == (5, 4)
    assert scores.isfinite().all()  # safe as logits
    order = torch.tensor([2, 0, 3, 1])  # no class is special
    assert torch.allclose(scores_of(rule, LOGITS[..., order]), scores[:, order], atol=1e-6)
    unanimous = torch.tensor([[[0.0, 9.0, 1.0, 2.0]]]).expand(6, 5, 4)
    assert (scores_of(rule, unanimous).argmax(1) == 1).all()
    shuffled = scores_of(rule, LOGITS[torch.randperm(7)])
    assert torch.allclose(shuffled, scores, atol=1e-6)  # passes are exchangeable
    one = scores_of(rule, LOGITS[:1])
    assert torch.equal(one.argmax(1), LOGITS[0].argmax(1))  # n = 1 is one noisy pass


def test_rules_are_their_formulas():
    assert torch.equal(
        scores_of("prediction").exp().mul(7).round(),
        torch.stack([(LOGITS.argmax(2) == k).sum(0) for k in range(4)], 1).float(),
    )
    assert torch.allclose(scores_of("soft").exp(), LOGITS.softmax(2).mean(0), atol=1e-6)
    assert torch.allclose(scores_of("logits"), LOGITS.mean(0), atol=1e-6)
    ranks = LOGITS.argsort(2, descending=True).argsort(2)  # rank of each class, 0 the best
    assert torch.allclose(scores_of("weighted").exp(), (0.5**ranks).mean(0), atol=1e-6)
    top = (ranks == 0) + 0.3 * (ranks == 1)
    assert torch.allclose(scores_of("ranks:1,0.3").exp(), top.mean(0).clamp_min(1e-20), atol=1e-6)


def test_the_mistake_of_reading_argsort_as_ranks_would_be_seen():
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    wrong = 0.5 ** logits.argsort(1, descending=True)
    assert not torch.equal(by_rank(logits), wrong)
    assert by_rank(logits).tolist() == [[0.125, 1.0, 0.5, 0.25]]


@pytest.mark.parametrize("rule", si.RULES)
def test_ties_go_to_the_lowest_class(rule):
    draws = torch.tensor([[[0.0, 5.0, 1.0]], [[0.0, 1.0, 5.0]]])  # one pass for each of 1 and 2
    assert scores_of(rule, draws).argmax(1).item() == 1
    assert scores_of(rule, torch.zeros(3, 2, 4)).argmax(1).tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 2))
def test_smoothed_error_is_at_most_twice_the_error_under_noise(votes, label):
    """Equations (17) and (21): l(g) <= 2 (1 - P_y) for every distribution of votes."""
    shares = torch.tensor([votes.count(k) / len(votes) for k in range(3)])
    others = torch.cat([shares[:label], shares[label + 1 :]]).max()
    relu = torch.relu(shares[label] - others)
    assert torch.isclose(relu, shares.max() - others, atol=1e-6)  # the identity (17)
    error = float(shares[label] < shares.max())
    assert error <= 2 * (1 - shares[label].item()) + 1e-6


def test_bad_rules_are_refused():
    for rule in ("majority", "ranks:", "ranks:a,b", "ranks:0,0"):
        with pytest.raises(si.InputError):
            rule_of(rule)
    with pytest.raises(si.InputError, match="prediction"):
        si.SmoothedClassifier(nn.Flatten(), rule="votes")


@pytest.fixture(params=["inputs", "weights", "both"])
def noisy(request):
    inputs = si.Gaussian(0.3) if request.param != "weights" else None
    weights = si.CNI(rank=2) if request.param != "inputs" else None
    return si.NoisyModel(small_net(), inputs=inputs, weights=weights).eval()


def test_members_are_deterministic_and_different(noisy, images):
    a, b, c = noisy.member(0, 1), noisy.member(0, 1), noisy.member(0, 2)
    assert torch.equal(a(images), b(images))
    assert torch.equal(a(images), a(images))
    assert not torch.equal(a(images), c(images))
    assert not torch.equal(a(images), noisy.member(1, 1)(images))
    assert torch.equal(noisy.member(0, 1)(images), a(images))  # nothing drawn between matters


def test_verdicts_depend_on_neither_batch_nor_order(noisy):
    images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    smooth = si.SmoothedClassifier(noisy, samples=16, seed=0, tile=32)
    together = smooth.predict(images)
    for size in (1, 7, 64):
        counts = torch.cat([smooth.predict(part).counts for part in images.split(size)])
        assert torch.equal(counts, together.counts)
    order = torch.randperm(100)
    assert torch.equal(smooth.predict(images[order]).labels, together.labels[order])


@pytest.mark.parametrize("per_image", [False, True])
def test_noise_per_image_is_keyed_by_pixels(per_image, images):
    model = si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.3)).eval()
    member = model.member(0, 0, per_image)
    steps = member(images) - images.flatten(1)
    assert torch.allclose(steps[0], steps[1], atol=1e-6) != per_image
    assert torch.equal(member(images[3:]), member(images)[3:])


def test_seed_none_draws_fresh_members_and_a_seed_repeats(noisy, images):
    fresh = si.SmoothedClassifier(noisy, samples=4, rule="soft")
    assert not torch.equal(fresh.predict(images).scores, fresh.predict(images).scores)
    kept = si.SmoothedClassifier(noisy, samples=4, rule="soft", seed=3)
    assert torch.equal(kept.predict(images).scores, kept.predict(images).scores)


@pytest.mark.parametrize("rule", si.RULES)
def test_forward_is_predict_and_has_the_soft_gradient(rule, noisy, images):
    smooth = si.SmoothedClassifier(noisy, samples=6, rule=rule, seed=0)
    points = images.clone().requires_grad_()
    assert torch.allclose(smooth(images), smooth.predict(images).scores, atol=1e-5)
    scores = smooth(points)  # with a gradient, hard rules answer with the soft vote
    stand_in = (
        smooth
        if si.RULES[rule].differentiable
        else si.SmoothedClassifier(noisy, samples=6, rule="soft", seed=0)
    )
    assert torch.allclose(scores.detach(), stand_in(images), atol=1e-5)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), points)
    draws = torch.stack([noisy.member(0, s)(points) for s in range(6)])
    expected = draws.mean(0) if rule == "logits" else draws.softmax(2).mean(0).log()
    (truth,) = torch.autograd.grad(expected[:, 0].sum(), points)
    assert torch.allclose(gradient, truth, atol=1e-5)
    assert truth.abs().max() > 0


def test_a_deterministic_network_smooths_to_itself(net, images):
    answer = si.SmoothedClassifier(net, samples=5, seed=0).predict(images)
    assert torch.equal(answer.labels, net(images).argmax(1))
    assert (answer.counts.max(1).values == 5).all()
    assert answer.samples.tolist() == [5] * 6


def test_any_random_module_can_be_smoothed(images):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    module.eval()[1].train()  # dropout left on
    smooth = si.SmoothedClassifier(module, samples=8, seed=0)
    one, two = smooth.predict(images), smooth.predict(images)
    assert torch.equal(one.counts, two.counts)
    assert (one.counts.max(1).values < 8).any()  # the passes do differ
    member = member_of(module, 0, 0)
    assert torch.equal(member(images), member(images))
    assert next(smooth.parameters()) is not None


def test_dropout_left_on_inside_a_noisy_model(images):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    noisy = si.NoisyModel(module, weights=si.PNI())
    noisy.eval().module[1].train()
    member = noisy.member(0, 0)
    assert torch.equal(member(images), member(images))
    points = images.clone().requires_grad_()
    smooth = si.SmoothedClassifier(noisy, samples=4, rule="soft", seed=0)
    (gradient,) = torch.autograd.grad(smooth(points)[:, 0].sum(), points)
    draws = torch.stack([noisy.member(0, s)(points) for s in range(4)])
    (truth,) = torch.autograd.grad(draws.softmax(2).mean(0).log()[:, 0].sum(), points)
    assert torch.allclose(gradient, truth, atol=1e-5)


def test_batch_statistics_and_broken_outputs_are_refused(images):
    class Broken(nn.Module):
        def forward(self, images):
            return images.flatten(1).log() * 0 - torch.inf

    with pytest.raises(si.InputError, match="NaN"):
        si.SmoothedClassifier(Broken(), samples=2).predict(images)
    untracked = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()).eval()
    with pytest.raises(si.InputError, match="track running"):
        si.SmoothedClassifier(untracked, samples=2).predict(images)


def test_training_mode_batch_normalisation_is_refused(images):
    smooth = si.SmoothedClassifier(si.NoisyModel(small_net().train()), samples=2)
    with pytest.raises(si.InputError, match=r"eval\(\)"):
        smooth.predict(images)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.rand(1, 8, 8), "shape"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((2, 1, 8, 8), math.nan), "finite"),
        (torch.full((2, 1, 8, 8), 1.5), r"\[0, 1\]"),
        (torch.full((2, 1, 8, 8), -0.1), r"\[0, 1\]"),
        (torch.rand(2, 3, 8, 8), "3 channels"),
    ],
)
def test_bad_images_are_named(bad, said, net):
    with pytest.raises(si.InputError, match=said):
        si.SmoothedClassifier(si.NoisyModel(net), samples=2).predict(bad)


def test_bad_numbers_are_refused(net, images):
    for bad in (0, -1):
        with pytest.raises(si.InputError, match="samples"):
            si.SmoothedClassifier(net, samples=bad)
        with pytest.raises(si.InputError, match="samples"):
            si.SmoothedClassifier(net).predict(images, samples=bad)


def test_smoothing_moves_the_boundary_as_the_formula_says(half_space):
    """A vote is right exactly on the right side, however near, given enough passes."""
    images = (0.5 + 0.05 * half_space.normal.view(1, 1, 4, 4)).detach()
    share = NormalDist().cdf(0.05 / 0.2)
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.2)).eval()
    counts = si.SmoothedClassifier(noisy, 2000, seed=1).predict(images).counts
    assert counts[0, 1] / 2000 == pytest.approx(
        share, abs=4 * math.sqrt(share * (1 - share) / 2000)
    )


@pytest.mark.slow
def test_verdicts_of_1000_images_are_the_same_for_all_batch_sizes(cifar10):
    """The shipped network (or a fresh one), 8 passes, batches of 1, 7, 256 and 1,000, in fp32."""
    name = "cni-w-resnet20-cifar10"
    fresh = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), si.resnet20())
    model = si.load(name) if name in si.models() else si.NoisyModel(fresh, weights=si.CNI()).eval()
    noisy = model.with_inputs(si.Gaussian(0.06))
    smooth = si.SmoothedClassifier(noisy, samples=8, seed=0)
    together = smooth.predict(cifar10.images)
    for size in (1, 7, 256):
        counts = torch.cat([smooth.predict(part).counts for part in cifar10.images.split(size)])
        assert torch.equal(counts, together.counts), size
