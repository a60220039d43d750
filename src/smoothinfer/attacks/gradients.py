"""The gradient an attack climbs; averaging over noise belongs here, not in the attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoothinfer.attacks.objectives import Objective
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


def single_gradient(
    model: nn.Module, images: Images, labels: Labels, objective: Objective
) -> Tensor:
    """grad_x objective(model(x), y) under one draw of the noise."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        value = objective(model(point), labels).sum()
        (gradient,) = torch.autograd.grad(value, point)
    return gradient


@torch.no_grad()
def mean_objective(
    model: nn.Module, images: Images, labels: Labels, objective: Objective, draws: int = 1
) -> Tensor:
    """Return the objective of each image, averaged over fresh draws, (N,)."""
    return torch.stack([objective(model(images), labels) for _ in range(draws)]).mean(0)
