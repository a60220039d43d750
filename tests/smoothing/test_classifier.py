"""The smoothed classifier: shares of votes, their gradient, and what gets no vote."""

import copy
import math
import pickle
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.members import member_of
from tests.conftest import small_net


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


def test_smoothing_moves_the_boundary_as_the_formula_says(half_space):
    """A vote is right exactly on the right side, however near, given enough passes."""
    images = (0.5 + 0.05 * half_space.normal.view(1, 1, 4, 4)).detach()
    share = NormalDist().cdf(0.05 / 0.2)
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.2)).eval()
    counts = si.SmoothedClassifier(noisy, 2000, seed=1).predict(images).counts
    assert counts[0, 1] / 2000 == pytest.approx(
        share, abs=4 * math.sqrt(share * (1 - share) / 2000)
    )


def test_verdicts_depend_on_neither_batch_nor_order(noisy):
    images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    smooth = si.SmoothedClassifier(noisy, samples=16, seed=0, tile=32)
    together = smooth.predict(images)
    for size in (1, 7, 64):
        counts = torch.cat([smooth.predict(part).counts for part in images.split(size)])
        assert torch.equal(counts, together.counts)
    order = torch.randperm(100)
    assert torch.equal(smooth.predict(images[order]).labels, together.labels[order])


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


def test_votes_are_cast_in_inference_mode_too(net, images):
    smooth = si.SmoothedClassifier(si.NoisyModel(net, weights=si.PNI()).eval(), 8, seed=0)
    wanted = smooth.predict(images[:1]).counts
    with torch.inference_mode():
        assert torch.equal(smooth.predict(images[:1]).counts, wanted)


def test_a_vote_can_be_repeated_from_the_first_call_on(net, images):
    smooth = si.SmoothedClassifier(si.NoisyModel(net, inputs=si.Gaussian(0.3)).eval(), samples=3)
    rounds = []
    for _ in range(2):
        torch.manual_seed(0)
        rounds.append(torch.stack([smooth(images), smooth(images)]))
    assert torch.equal(*rounds)


def test_a_model_that_has_voted_is_pickled(net, images):
    smooth = si.SmoothedClassifier(si.NoisyModel(net, weights=si.PNI()).eval(), 3, seed=0)
    wanted = smooth.predict(images).counts
    for twin in (pickle.loads(pickle.dumps(smooth)), copy.deepcopy(smooth)):
        assert torch.equal(twin.predict(images).counts, wanted)


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


def test_noise_by_the_batch_gets_no_vote_in_training_mode(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    noisy = si.NoisyModel(net, activations=si.PNI(), shape=(1, 8, 8)).train()
    with pytest.raises(si.InputError, match="scales its noise by the whole batch"):
        si.SmoothedClassifier(noisy, 4).predict(images)
    assert len(si.SmoothedClassifier(noisy.eval(), 4).predict(images).labels) == len(images)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(1, 8, 8), "shape"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((2, 1, 8, 8), math.nan), "finite"),
        (torch.full((2, 1, 8, 8), 1.5), r"\[0, 1\]"),
        (torch.full((2, 1, 8, 8), -0.1), r"\[0, 1\]"),
        (torch.rand(2, 3, 8, 8), "3 channels"),
    ],
)
def test_bad_images_are_named(bad, message, net):
    with pytest.raises(si.InputError, match=message):
        si.SmoothedClassifier(si.NoisyModel(net), samples=2).predict(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(torch.zeros(0, 1, 8, 8), "no images"), (np.zeros(3), "must be a torch.Tensor")],
    ids=["no images", "an array"],
)
def test_no_images_and_no_tensors_get_no_vote(bad, message, net):
    with pytest.raises(si.InputError, match=message):
        si.SmoothedClassifier(net).predict(bad)


def test_images_of_another_shape_are_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    smooth = si.SmoothedClassifier(si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval(), 4)
    with pytest.raises(si.InputError, match=r"does not take .* images of shape \(3, 8, 8\)"):
        smooth.predict(torch.rand(2, 3, 8, 8))


def test_one_class_is_no_vote(images):
    noisy = si.NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), inputs=si.Gaussian(0.1))
    with pytest.raises(si.InputError, match="at least 2 classes"):
        si.SmoothedClassifier(noisy.eval(), 4).predict(images)


@pytest.mark.parametrize("bad", [0, -1, 4.0, 4.5, True, "4", float("nan"), 10**30, None])
def test_bad_numbers_are_refused(net, images, bad):
    with pytest.raises(si.InputError, match=r"^samples must be"):
        si.SmoothedClassifier(net, samples=bad)
    if bad is not None:
        with pytest.raises(si.InputError, match=r"^samples must be"):
            si.SmoothedClassifier(net).predict(images, samples=bad)
        with pytest.raises(si.InputError, match=r"^tile must be|out of memory"):
            si.SmoothedClassifier(net, 4, tile=bad)
    if bad not in (0, -1, None):
        with pytest.raises(si.InputError, match=r"^seed must be"):
            si.SmoothedClassifier(net, 4, seed=bad)


@pytest.mark.parametrize("delta", [0, 1, -0.1, 2.0, float("nan"), "0.1", True, None])
@pytest.mark.parametrize("stop", si.STOPS)
def test_a_delta_that_is_no_probability_is_refused(net, images, delta, stop):
    with pytest.raises(si.InputError, match=r"^delta must be"):
        si.SmoothedClassifier(net, 4).predict(images, stop=stop, delta=delta)


def test_numbers_of_numpy_and_torch_are_plain_numbers(net, images):
    plain = si.SmoothedClassifier(net, 8, seed=3, tile=16).predict(images, 6, delta=0.5, stop="ppr")
    for kind in (np.int64, np.uint8, torch.tensor):
        smooth = si.SmoothedClassifier(net, kind(8), seed=kind(3), tile=kind(16))
        assert (type(smooth.samples), type(smooth.seed), type(smooth.tile)) == (int, int, int)
        answer = smooth.predict(images, kind(6), delta=np.float32(0.5), stop="ppr")
        assert torch.equal(answer.counts, plain.counts)


def test_close_votes_are_decided_before_they_are_rounded():
    """Two passes over 100 classes: rounded scores tie where the sums do not."""
    logits = torch.randn(2, 128, 100, generator=torch.Generator().manual_seed(0))
    orders = logits.argsort(dim=2, descending=True, stable=True)
    sums = [[0] * 100 for _ in range(128)]
    for order in orders:
        for image, row in enumerate(order.tolist()):
            for rank, k in enumerate(row):
                sums[image][k] += 2 ** (99 - rank)
    passes = iter(logits)

    class Listed(nn.Module):
        def forward(self, images):
            return next(passes, logits[0])[: len(images)]

    smooth = si.SmoothedClassifier(Listed().eval(), 2, "weighted", tile=128)
    smooth._classes = 100  # counting them would take a pass
    answer = smooth.predict(torch.rand(128, 1, 1, 1))
    assert answer.labels.tolist() == [row.index(max(row)) for row in sums]
    assert not torch.equal(answer.labels, answer.scores.argmax(1))


def test_a_bad_rule_is_refused():
    with pytest.raises(si.InputError, match="prediction"):
        si.SmoothedClassifier(nn.Flatten(), rule="votes")


@pytest.mark.slow
def test_verdicts_of_1000_images_are_the_same_for_all_batch_sizes(cifar10):
    """The shipped network (or a fresh one), 8 passes, batches of 1, 7, 256 and 1,000, in fp32."""
    name = "cni-w-resnet20-cifar10"
    fresh = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), si.resnet20())
    model = (
        si.load(name) if name in si.list_models() else si.NoisyModel(fresh, weights=si.CNI()).eval()
    )
    noisy = model.with_inputs(si.Gaussian(0.06))
    smooth = si.SmoothedClassifier(noisy, samples=8, seed=0)
    together = smooth.predict(cifar10.images)
    for size in (1, 7, 256):
        counts = torch.cat([smooth.predict(part).counts for part in cifar10.images.split(size)])
        assert torch.equal(counts, together.counts), size
