"""Gradients with respect to images that do not vanish on confident networks.

The cross-entropy of an image with a lead of L logits has a gradient of the order exp(-L), and
float32 ends at exp(-103). So the gradient with respect to the logits is computed in float64, scaled
to 1 for the way back through the network, and scaled back in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothinfer.attacks.losses import AttackLoss, loss_of
from smoothinfer.numerics.balls import per_image
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Labels, Logits


def gradient_of(
    network: Callable[[Images], Logits], points: Images, loss: Callable[[Logits], Tensor]
) -> tuple[Tensor, Logits]:
    """Return grad_x sum loss(network(x)) at ``points``, in float64, and the logits.

    Args:
        network: from images (N, C, H, W) to logits (N, K), the same at both calls.
        points: (N, C, H, W).
        loss: from logits to (N,).

    >>> import math
    >>> flat = nn.Flatten()
    >>> gradient, _ = gradient_of(flat, torch.ones(1, 1, 1, 2), lambda z: (-400 * z[:, 0]).exp())
    >>> gradient.flatten().tolist() == [-400 * math.exp(-400), 0]
    True
    """
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        logits = network(leaf)
        exact = logits.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(loss(exact).sum(), exact)
        size = slope.abs().amax(1)
        size = torch.where(size > 0, size, 1.0)
        outgoing = (slope / size[:, None]).to(logits.dtype)
        (unit,) = torch.autograd.grad(logits, leaf, outgoing)
    return unit.double() * per_image(size, exact.new_empty(unit.shape)), logits.detach()


def single_gradient(model: nn.Module, images: Images, labels: Labels, loss: AttackLoss) -> Tensor:
    """grad_x loss(model(x), y) under one draw of the noise, in float64."""

    def run(points: Images) -> Logits:
        return logits_of(model, points)

    return gradient_of(run, images, lambda logits: loss_of(loss, logits, labels))[0]


def mean_gradient(
    model: nn.Module, images: Images, labels: Labels, loss: AttackLoss, draws: int = 1
) -> Tensor:
    """(1/M) sum_i grad_x loss(model(x), y) over M fresh draws of the model's noise, in float64.

    With M = 1 it is the gradient of PGD, with M > 1 that of EPGD. Draws are taken one after the
    other, so memory does not grow with M.

    Args:
        model: any module from images (N, C, H, W) to logits.
        images: (N, C, H, W).
        labels: (N,).
        loss: (logits, labels (N,)) -> (N,).
        draws: M, at least 1.

    Source: Nemcovsky et al. 2019, equations (24)-(25); Athalye et al. 2018 (EoT).

    >>> from smoothinfer.attacks.losses import margin
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> g = mean_gradient(net, torch.rand(1, 1, 2, 2), torch.tensor([0]), margin)
    >>> bool(torch.allclose(g.flatten().float(), net[1].weight[1] - net[1].weight[0]))
    True
    """
    total = torch.zeros_like(images, dtype=torch.float64)
    for _ in range(draws):
        total += single_gradient(model, images, labels, loss)
    return total / draws
