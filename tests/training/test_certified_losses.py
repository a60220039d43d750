"""Losses for certificates: their formulas written out on networks where each part is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.eot import fresh_seeds
from smoothinfer.engine.members import run_draws
from smoothinfer.training.certified_losses import macer, smooth_adversarial, smooth_mix, stability

SIGMA = 0.2


@pytest.fixture
def noisy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return si.NoisyModel(net, inputs=si.Gaussian(SIGMA)).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = 0.3 + 0.4 * torch.rand(6, 1, 4, 4, generator=generator)
    return images, torch.tensor([0, 1, 2, 0, 1, 2])


def seeded(function, *arguments, **options):
    torch.manual_seed(5)
    return function(*arguments, **options)


def test_stability_compares_with_the_clean_answer(noisy, batch):
    images, labels = batch
    clean = noisy.module(images)
    torch.manual_seed(5)
    drawn = noisy(images)
    between = -(clean.softmax(1) * drawn.log_softmax(1)).sum(1).mean()
    expected = F.cross_entropy(clean, labels) + 3 * between
    assert torch.allclose(seeded(stability, noisy, images, labels, weight=3.0), expected)


def test_macer_enlarges_the_radius_of_images_that_are_right(noisy, batch):
    images, labels = batch
    torch.manual_seed(5)
    logits = torch.stack([noisy(images) for _ in range(4)]).detach()
    mean = logits.softmax(2).mean(0)
    sharp = (16 * logits).softmax(2).mean(0)
    expected = float(F.nll_loss(mean.log(), labels))
    for shares, label in zip(sharp, labels, strict=True):
        first, second = sorted(shares.tolist(), reverse=True)[:2]
        margin = norm.ppf(first) - norm.ppf(second)
        if shares.argmax() == label and math.isfinite(margin) and margin <= 2.0:
            expected += 7 * SIGMA / 2 * (2.0 - margin) / len(labels)
    found = seeded(macer, noisy, images, labels, draws=4, weight=7.0, gamma=2.0)
    assert found.item() == pytest.approx(expected, rel=1e-3)


def test_smooth_adversarial_trains_on_the_draws_of_its_attack(noisy, batch):
    """Of two classes every draw has one gradient, so the attack goes straight to the ball's end."""
    images, labels = batch
    labels = labels % 2
    noisy.module[1].weight.data[2] = 0  # the third class is out of play
    noisy.module[1].bias.data[2] = -1e4
    torch.manual_seed(5)
    seeds = fresh_seeds(3)
    weight = noisy.module[1].weight
    way = torch.where(labels[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1])
    points = images + 0.1 * (way / way.norm(dim=1, keepdim=True)).view_as(images)
    expected = torch.stack(
        [F.cross_entropy(each, labels) for each in run_draws(noisy, points, seeds)]
    ).mean()
    found = seeded(smooth_adversarial, noisy, images, labels, draws=3, radius=0.1, steps=4)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_smooth_mix_without_its_second_term_is_noise_training(noisy, batch):
    images, labels = batch
    torch.manual_seed(5)
    logits = run_draws(noisy, images, fresh_seeds(2))
    expected = torch.stack([F.cross_entropy(each, labels) for each in logits]).mean()
    assert torch.allclose(seeded(smooth_mix, noisy, images, labels, weight=0.0), expected)
    assert seeded(smooth_mix, noisy, images, labels, weight=5.0) > expected
    far = seeded(smooth_mix, noisy, images, labels, weight=5.0, one_step=True)
    assert far > 0


def test_smooth_mix_asks_nothing_of_images_that_are_wrong(noisy, batch):
    images, _ = batch
    with torch.no_grad():
        wrong = noisy.module(images).argmin(1)
    noisy.inputs.sigma = 1e-4  # so that no draw is right by luck
    plain = seeded(smooth_mix, noisy, images, wrong, weight=0.0)
    assert torch.equal(seeded(smooth_mix, noisy, images, wrong, weight=9.0), plain)


@pytest.mark.parametrize("name", ["stability", "macer"])
def test_losses_that_need_input_noise_say_so(name, batch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(si.InputError, match=f"the loss {name}"):
        si.LOSSES[name](si.NoisyModel(net, weights=si.PNI()), *batch)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stability", {"weight": -1.0}),
        ("macer", {"draws": 0}),
        ("macer", {"gamma": float("nan")}),
        ("smooth_adversarial", {"steps": 0}),
        ("smooth_adversarial", {"radius": -1.0}),
        ("smooth_mix", {"draws": 1.5}),
        ("consistency", {"draws": 1}),
    ],
)
def test_numbers_out_of_range_are_refused(name, options, noisy, batch):
    with pytest.raises(si.InputError):
        si.LOSSES[name](noisy, *batch, **options)
