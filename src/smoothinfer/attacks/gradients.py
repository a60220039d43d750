"""The gradient an attack climbs; averaging over noise belongs here, not in the attacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from smoothinfer.attacks.eot import Landscape, fresh_seeds, seeded
from smoothinfer.attacks.losses import Objective
from smoothinfer.attacks.pooling import POOLS, Pool, log_mean_probability
from smoothinfer.errors import InputError, check_labels
from smoothinfer.numerics.precision import computing
from smoothinfer.numerics.randomness import normal
from smoothinfer.types import Images, Labels, Logits


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

    >>> from smoothinfer.attacks.losses import margin
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
    model: nn.Module,
    images: Images,
    labels: Labels,
    objective: Objective,
    draws: int = 1,
    pool: Pool = log_mean_probability,
) -> Tensor:
    """grad_x objective(pool(model(x) over M draws), y): the loss of the average.

    With the cross-entropy and the mean probability it is SmoothAdv's gradient,
    sum_i p_i grad log p_i / sum_i p_i with p_i the label's probability: draws that are already
    fooled weigh little. Each draw is run twice under the same seed, so memory does not grow with M.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        draws: M, at least 1.
        pool: how the draws become one answer; see ``POOLS``.

    Source: Salman et al. 2019, arXiv 1906.04584; Nemcovsky et al. 2019, section 2.

    >>> from smoothinfer.attacks.losses import cross_entropy
    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    >>> images, labels = torch.rand(1, 1, 2, 2), torch.tensor([0])
    >>> pooled_gradient(net, images, labels, cross_entropy, draws=8).shape
    torch.Size([1, 1, 2, 2])
    """
    slope = Landscape(model, objective, pool).climb(images, labels, fresh_seeds(draws)).slope
    assert slope is not None
    return slope


def query_gradient(
    model: nn.Module,
    images: Images,
    labels: Labels,
    objective: Objective,
    draws: int = 1,
    queries: int = 32,
    spread: float = 0.001,
) -> Tensor:
    """(1/(2 m s)) sum_j (f(x + s u_j) - f(x - s u_j)) u_j: the gradient, from answers alone.

    f is the objective under one draw, the same on both sides; u_j ~ N(0, I) in antithetic pairs.
    Answers are fp32, also under autocast: such small differences are lost when they are rounded.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        draws: M: the m = M * ``queries`` pairs cost 2 m forward passes.
        queries: pairs for each draw.
        spread: s, in pixel units.

    Raises:
        InputError: ``queries`` is less than 1 or ``spread`` is not positive.

    Source: Ilyas et al. 2018, *Black-box Adversarial Attacks with Limited Queries and
    Information*, arXiv 1804.08598.

    >>> from smoothinfer.attacks.losses import margin
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> query_gradient(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), margin, queries=4).shape
    torch.Size([2, 1, 2, 2])
    """
    if queries < 1 or not spread > 0:
        raise InputError(f"queries {queries} must be >= 1 and spread {spread} positive")
    total = torch.zeros_like(images)
    with torch.no_grad(), computing("fp32", images.device):
        for seed in fresh_seeds(draws * queries):
            direction = normal(images.shape, images)
            up, down = (
                _goal(seeded(model, images + side * spread * direction, seed), labels, objective)
                for side in (1, -1)
            )
            total += ((up - down) / (2 * spread)).view(-1, 1, 1, 1) * direction
    return total / (draws * queries)


def _goal(logits: Logits, labels: Labels, objective: Objective) -> Tensor:
    check_labels(labels, logits, logits.shape[1])
    return objective(logits, labels)


def single_gradient(
    model: nn.Module, images: Images, labels: Labels, objective: Objective
) -> Tensor:
    """grad_x objective(model(x), y) under one draw of the noise."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        logits = model(point)
        (gradient,) = torch.autograd.grad(_goal(logits, labels, objective).sum(), point)
    return gradient


@torch.no_grad()
def mean_objective(
    model: nn.Module, images: Images, labels: Labels, objective: Objective, draws: int = 1
) -> Tensor:
    """Return the objective of each image, averaged over fresh draws, (N,)."""
    return Landscape(model, objective).see(images, labels, fresh_seeds(draws)).value


Gradient = Callable[[nn.Module, Images, Labels, Objective, int], Tensor]

GRADIENTS: dict[str, Gradient] = {
    "mean": mean_gradient,
    **{name: partial(pooled_gradient, pool=pool) for name, pool in POOLS.items() if pool},
    "queries": query_gradient,
}
