"""The gradient an attack climbs; averaging over noise belongs here, not in the attacks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothinfer.attacks.objectives import Objective
from smoothinfer.errors import check_labels
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images, Labels


def mean_gradient(
    model: nn.Module, images: Images, labels: Labels, objective: Objective, draws: int = 1
) -> Tensor:
    """(1/M) sum_i grad_x objective(model(x), y) over M fresh draws of the model's noise.

    With M = 1 it is the gradient of PGD, with M > 1 that of EPGD (expectation over
    transformation). Draws are taken one after the other, so memory does not grow with M.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        draws: M, at least 1.

    Source: Nemcovsky et al. 2019, equations (24)-(25); Athalye et al. 2018 (EoT).

    >>> from smoothinfer.attacks.objectives import margin
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> g = mean_gradient(net, torch.rand(1, 1, 2, 2), torch.tensor([0]), margin)
    >>> bool(torch.allclose(g.flatten(), net[1].weight[1] - net[1].weight[0]))
    True
    """
    total = torch.zeros_like(images)
    for _ in range(draws):
        total += single_gradient(model, images, labels, objective)
    return total / draws


def pooled_gradient(
    model: nn.Module, images: Images, labels: Labels, objective: Objective, draws: int = 1
) -> Tensor:
    """grad_x objective(log((1/M) sum_i p_i(x)), y): the loss of the average, not the average loss.

    With the cross-entropy it is SmoothAdv's gradient, sum_i p_i grad log p_i / sum_i p_i with p_i
    the label's probability: draws that are already fooled weigh little. Each draw is run twice
    under the same seed, so memory does not grow with M.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        draws: M, at least 1.

    Source: Salman et al. 2019, arXiv 1906.04584; Nemcovsky et al. 2019, section 2.

    >>> from smoothinfer.attacks.objectives import cross_entropy
    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    >>> images, labels = torch.rand(1, 1, 2, 2), torch.tensor([0])
    >>> pooled_gradient(net, images, labels, cross_entropy, draws=8).shape
    torch.Size([1, 1, 2, 2])
    """
    seeds = torch.randint(2**62, (draws,)).tolist()
    with torch.no_grad():
        logits = torch.stack([_seeded(model, images, seed) for seed in seeds])
    check_labels(labels, images, logits.shape[2])
    total = torch.zeros_like(images)
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        (pull,) = torch.autograd.grad(objective(log_mean_probability(leaf), labels).sum(), leaf)
        for seed, share in zip(seeds, pull, strict=True):
            point = images.detach().requires_grad_()
            total += torch.autograd.grad(_seeded(model, point, seed), point, share)[0]
    return total


def log_mean_probability(draws: Tensor) -> Tensor:
    """log((1/M) sum_i softmax(logits_i)) for logits (M, N, K), without underflow, (N, K)."""
    return draws.float().log_softmax(2).logsumexp(0) - math.log(len(draws))


def _seeded(model: nn.Module, images: Images, seed: int) -> Tensor:
    with isolated_rng(seed):
        return model(images)


def single_gradient(
    model: nn.Module, images: Images, labels: Labels, objective: Objective
) -> Tensor:
    """grad_x objective(model(x), y) under one draw of the noise."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        logits = model(point)
        check_labels(labels, images, logits.shape[1])
        (gradient,) = torch.autograd.grad(objective(logits, labels).sum(), point)
    return gradient


@torch.no_grad()
def mean_objective(
    model: nn.Module, images: Images, labels: Labels, objective: Objective, draws: int = 1
) -> Tensor:
    """Return the objective of each image, averaged over fresh draws, (N,)."""
    return torch.stack([objective(model(images), labels) for _ in range(draws)]).mean(0)


Gradient = Callable[[nn.Module, Images, Labels, Objective, int], Tensor]

GRADIENTS: dict[str, Gradient] = {"mean": mean_gradient, "pooled": pooled_gradient}
