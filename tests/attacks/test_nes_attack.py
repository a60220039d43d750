"""Attacks by answers alone: NAttack, and gradients estimated from queries."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.losses import margin
from smoothinfer.attacks.nes_attack import _Search
from smoothinfer.recipes import load_recipe
from smoothinfer.workflows.train import train_run
from tests.attacks.conftest import check_crosses_the_plane


def test_queries_estimate_the_gradient(half_space, middle, sides):
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.3)).eval()
    torch.manual_seed(0)
    found = si.GRADIENTS["queries"](noisy, middle, sides, margin, 8, queries=512)
    truth = half_space.normal.view(1, 1, 4, 4) * (1 - 2 * sides.view(-1, 1, 1, 1))
    assert (F.cosine_similarity(found.flatten(1), truth.flatten(1)) > 0.95).all()


def test_estimates_from_queries_are_not_rounded(net, images, labels):
    """Differences of 0.001 would drown in bfloat16, which autocast asks for around attacks."""
    found = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found.append(si.GRADIENTS["queries"](net, images, labels, margin, 1))
    assert torch.equal(*found)


def test_nattack_crosses_the_plane(half_space, middle, sides):
    """Where the best step would carry an image well past the plane."""
    options = {"steps": 40, "population": 100, "rate": 0.05}
    check_crosses_the_plane("nattack", options, half_space, middle, sides)


def test_queries_move_black_and_white_pixels():
    with si.isolated_rng(4):  # an image that is fooled leaves before it has gained as much
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    images = (torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    labels = net(images).argmax(1)
    ball = si.Linf(0.1)
    generator = torch.Generator().manual_seed(0)
    found = si.nattack(net, images, labels, ball, steps=40, population=50, generator=generator)
    best = si.pgd(net, images, labels, ball, steps=20)
    margins = [margin(net(x), labels).detach() for x in (images, found, best)]
    assert ((margins[1] - margins[0]) > 0.5 * (margins[2] - margins[0])).all()


def test_nattack_knows_the_gradient_of_a_digits_network_after_20_000_queries(tmp_path):
    """In a cloud of small spread; the wide one by default follows the reward's mean over it."""
    recipe = load_recipe("recipes/digits/cni-w.yaml", ["noise.weights=null", "epochs=3"])
    train_run(recipe, si.load_data("digits", "train"), tmp_path)
    net, data = si.load(tmp_path), si.load_data("digits", "test", 40)
    correct = (net(data.images).argmax(1) == data.labels).nonzero().flatten()[:4]
    images, labels = data.images[correct], data.labels[correct]
    search = _Search(net, images, labels, si.Linf(0.15), 0.02, "auto")
    torch.manual_seed(0)
    search.mean = torch.zeros_like(images)
    search.step(20_000, 1.0)
    mean = torch.zeros_like(images).requires_grad_()
    log_p = net(search.point(mean)).log_softmax(1)
    reward = -0.5 * (-margin(log_p, labels)).clamp_min(0)
    (truth,) = torch.autograd.grad(reward.sum(), mean)
    assert (F.cosine_similarity(search.mean.flatten(1), truth.flatten(1)) >= 0.9).all()


def test_a_population_of_one_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="population"):
        si.nattack(net, images, labels, si.Linf(0.1), population=1)
