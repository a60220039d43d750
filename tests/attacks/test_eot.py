"""Attacks on random models must win the vote, not a draw; and every random model counts as one."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.eot import Landscape, is_random, repeats
from smoothinfer.attacks.nes_attack import _Search
from smoothinfer.attacks.losses import cross_entropy, margin
from smoothinfer.recipes import load_recipe
from smoothinfer.workflows.train import train_run
from tests.conftest import small_net


class ManyClasses(nn.Module):
    """The label has 40 % of the draws and wins: the others are shared out among many classes."""

    def forward(self, images):
        lost = torch.rand(len(images)) > 0.4
        other = torch.randint(1, 10, (len(images),))
        return nn.functional.one_hot(torch.where(lost, other, 0), 10).float()


def test_a_label_without_a_majority_may_lead_the_vote():
    images, labels = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    land = Landscape(ManyClasses(), margin)
    seen = land.see(images, labels, range(256))
    assert (seen.wrong > 0.5).all()
    assert not land.outvoted(images, labels, range(256)).any()
    assert land.outvoted(images, labels + 1, range(256)).all()


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_the_nearest_example_loses_the_vote_and_not_by_chance(name, images):
    """Where the label has fewer than half of the draws it may still win: that is no success."""
    torch.manual_seed(0)
    net = small_net(classes=10).eval()
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=1.0)
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    smooth = si.SmoothedClassifier(noisy, 512, seed=1)
    labels = smooth.predict(images).labels
    options = {"ddn": {"steps": 30}, "cw": {"steps": 30, "searches": 3}}[name]
    found = si.ATTACKS[name](noisy, images, labels, si.L2(10.0), samples=8, **options)
    moved = (found - images).flatten(1).norm(dim=1) > 0
    assert moved.any()
    lost = smooth.predict(found[moved]).labels != labels[moved]
    assert lost.sum() >= len(lost) - 1  # two standard errors leave a little to chance


def test_a_few_draws_are_not_taken_for_success(half_space):
    """At the plane every draw errs in one of two: an image that left after one draw would stand."""
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(1.0)).eval()
    images = torch.full((64, 1, 4, 4), 0.5)
    labels = torch.ones(64, dtype=torch.int64)
    for run in (
        lambda: si.apgd(noisy, images, labels, si.Linf(0.2), steps=20, draws=1),
        lambda: si.square(noisy, images, labels, si.Linf(0.2), queries=50, draws=1),
    ):
        torch.manual_seed(0)
        moved = run()
        assert half_space.distance(moved).mean() < -0.3
        assert (moved != images).flatten(1).any(1).all()


def test_queries_move_black_and_white_pixels():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    images = (torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    labels = net(images).argmax(1)
    ball = si.Linf(0.1)
    moved = si.nattack(net, images, labels, ball, steps=40, population=50)
    best = si.pgd(net, images, labels, ball, steps=20)
    goals = [margin(net(x), labels).detach() for x in (images, moved, best)]
    assert ((goals[1] - goals[0]) > 0.5 * (goals[2] - goals[0])).all()


def test_a_ball_of_no_images_has_no_start():
    ball = si.L2(0.5)
    assert ball.random(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.rand(3, 1, 4, 4)
    wrong = (net(images).argmax(1) + 1) % 3  # all done before it begins
    assert torch.equal(si.apgd(net, images, wrong, ball, steps=3), images)


class Draws(nn.Module):
    """Adds what ``draw`` gives."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.draw, self.linear = draw, nn.Linear(16, 3)

    def forward(self, images):
        return self.linear(images.flatten(1)) + self.draw()


OWN = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("draw", "shared"),
    [
        (lambda: float(torch.rand(()) > 0.5), True),
        (lambda: random.random(), True),
        (lambda: float(np.random.rand()), True),
        (lambda: float(torch.rand((), generator=OWN)), False),
    ],
    ids=["switch", "python", "numpy", "its own"],
)
def test_every_kind_of_randomness_is_seen(draw, shared):
    model, images = Draws(draw).eval(), torch.rand(2, 1, 4, 4)
    assert is_random(model, images)
    assert repeats(model, images) is shared
    labels = torch.tensor([0, 1])
    if shared:
        si.apgd(model, images, labels, si.Linf(0.1), steps=2, draws=2)
    else:
        with pytest.warns(UserWarning, match="no seed reaches"):
            si.apgd(model, images, labels, si.Linf(0.1), steps=2, draws=2)


def test_targets_are_one_class_or_many_and_have_their_own_objective(net, images, labels):
    ball = si.Linf(0.1)
    one, many = (
        si.pgd(net, images, labels, ball, targets=t, generator=torch.Generator().manual_seed(0))
        for t in (2, torch.full_like(labels, 2))
    )
    assert torch.equal(one, many)
    with pytest.raises(si.InputError, match="leave out 'margin'"):
        si.pgd(net, images, labels, ball, targets=2, objective="margin")


def test_two_classes_have_no_third_logit():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    with pytest.raises(si.InputError, match="at least 3 classes"):
        si.apgd(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), si.Linf(0.1), objective="dlr")


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_no_images_are_no_work(name, net):
    empty = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert len(si.ATTACKS[name](net, *empty, si.L2(1.0))) == 0


def test_an_attack_that_cannot_run_is_refused_before_any_work(net, images, labels, tmp_path):
    attacks = {"pgd": si.ATTACKS["pgd"], "square": si.ATTACKS["square"]}
    with pytest.raises(si.InputError, match="square moves within Linf only"):
        si.evaluate(net, (images, labels), attack=attacks, ball=si.L2(0.5), out=tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_nattack_knows_the_gradient_of_a_digits_network_after_20_000_queries(tmp_path):
    """In a cloud of small spread; the wide one by default follows the reward's mean over it."""
    recipe = load_recipe("recipes/digits/cni-w.yaml", ["noise.weights=null", "epochs=3"])
    train_run(recipe, si.load_data("digits", "train"), tmp_path)
    net, data = si.load(tmp_path), si.load_data("digits", "test", 40)
    right = (net(data.images).argmax(1) == data.labels).nonzero().flatten()[:4]
    images, labels = data.images[right], data.labels[right]
    search = _Search(net, images, labels, si.Linf(0.15), 0.02, "auto")
    torch.manual_seed(0)
    search.mean = torch.zeros_like(images)
    search.step(20_000, 1.0)
    mean = torch.zeros_like(images).requires_grad_()
    log_p = net(search.point(mean)).log_softmax(1)
    reward = -0.5 * (-margin(log_p, labels)).clamp_min(0)
    (truth,) = torch.autograd.grad(reward.sum(), mean)
    assert (F.cosine_similarity(search.mean.flatten(1), truth.flatten(1)) >= 0.9).all()


@pytest.mark.parametrize("rule", ["prediction", "soft"])
def test_what_is_climbed_is_what_is_compared(rule, net, images, labels):
    """Of a hard vote the climb sees a surrogate, by which points must be compared too."""
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.2)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=8, rule=rule)
    land, seeds = Landscape(smooth, cross_entropy), [1, 2]
    climbed, seen = land.climb(images, labels, seeds), land.see(images, labels, seeds)
    assert torch.allclose(climbed.value, seen.value, atol=1e-4)
