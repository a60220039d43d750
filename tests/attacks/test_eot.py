"""Losses and gradients over draws: attacks on random models must win the vote, not a draw."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.eot import EOTLoss, pooled_gradient
from smoothinfer.attacks.gradients import mean_gradient
from smoothinfer.attacks.losses import cross_entropy, margin


def test_the_mean_gradient_has_less_noise(net, images, labels):
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1)).eval()

    def gradients(draws):
        torch.manual_seed(0)
        found = [mean_gradient(noisy, images, labels, cross_entropy, draws) for _ in range(30)]
        return torch.stack(found)

    spread = [gradients(draws).var(0).mean().item() for draws in (1, 16)]
    assert spread[1] < spread[0] / 8  # 1/16 in expectation


def test_the_pooled_gradient_is_that_of_the_mean_probability(net, images, labels):
    """With members as draws the whole expression can be differentiated at once."""
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1)).eval()
    torch.manual_seed(0)
    found = pooled_gradient(noisy, images, labels, cross_entropy, draws=5)
    torch.manual_seed(0)
    seeds = torch.randint(2**62, (5,)).tolist()
    points = images.clone().requires_grad_()
    probabilities = []
    for seed in seeds:
        with si.isolated_rng(seed):
            probabilities.append(noisy(points).softmax(1).gather(1, labels[:, None]))
    loss = -torch.cat(probabilities, 1).mean(1).log().sum()
    (truth,) = torch.autograd.grad(loss, points)
    assert torch.allclose(found.float(), truth, atol=1e-5)
    mean = mean_gradient(noisy, images, labels, cross_entropy, 5)
    assert not torch.allclose(found, mean, atol=1e-3)  # EPGD's is another one


@pytest.mark.parametrize("rule", ["prediction", "soft"])
def test_points_are_compared_by_the_loss_whose_gradient_is_followed(rule, net, images, labels):
    """Of a hard vote the gradient sees a surrogate, by which points must be compared too."""
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.2)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=8, rule=rule)
    eot, seeds = EOTLoss(smooth, cross_entropy), [1, 2]
    followed = eot.evaluate_with_gradient(images, labels, seeds)
    compared = eot.evaluate(images, labels, seeds)
    assert torch.allclose(followed.value, compared.value, atol=1e-4)


class ManyClasses(nn.Module):
    """The label has 40 % of the draws and wins: the others are shared out among many classes."""

    def forward(self, images):
        lost = torch.rand(len(images)) > 0.4
        other = torch.randint(1, 10, (len(images),))
        return nn.functional.one_hot(torch.where(lost, other, 0), 10).float()


def test_a_label_without_a_majority_may_lead_the_vote():
    images, labels = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    eot = EOTLoss(ManyClasses(), margin)
    assert (eot.evaluate(images, labels, range(256)).wrong > 0.5).all()
    assert not eot.is_outvoted(images, labels, range(256)).any()
    assert eot.is_outvoted(images, labels + 1, range(256)).all()


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
        adversarial = run()
        assert half_space.distance(adversarial).mean() < -0.3
        assert (adversarial != images).flatten(1).any(1).all()
