"""The nearest point that the model gets wrong on average, searched from a given one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.losses import margin
from smoothinfer.attacks.projected_gradient import cosine
from smoothinfer.numerics.balls import Ball, per_image, pick_images
from smoothinfer.types import Images, Labels

_SHRINK = 0.05  # of the radius at first, where the point is wrong


def nearest_point(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    start: Images,
    steps: int,
    draws: int,
) -> Images:
    """Return the point of the largest margin among those that a search for the nearest one visits.

    r shrinks by a factor 1 - g where the mean margin over ``draws`` fresh draws is positive, and
    grows by 1 + g elsewhere, never beyond the ball; the point steps along the steepest ascent of
    the margin and is drawn back to distance r. g and the step fall with a cosine.

    Args:
        model: any module, in eval mode.
        images, labels, ball: as for `pgd`.
        start: (N, C, H, W), where the search begins.
        steps: of the search.
        draws: of each step.

    Source: Pintor et al. 2021, *Fast Minimum-norm Adversarial Attacks*, arXiv 2102.12827, here
    within a ball and on averages over draws.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> nearest_point(net, x, y, Linf(0.1), start=x, steps=3, draws=1).shape
    torch.Size([3, 1, 2, 2])
    """
    eot = EOTLoss(model, margin)
    points = ball.project(start, images)
    radius = torch.full((len(images),), ball.radius, dtype=images.dtype, device=images.device)
    best, highest = points, torch.full_like(radius, -math.inf)
    for step in range(steps):
        found = eot.evaluate_with_gradient(points, labels, fresh_seeds(draws))
        assert found.gradient is not None
        value = found.value.to(radius.dtype)
        best = pick_images(value > highest, points, best)
        highest = torch.maximum(value, highest)
        share = cosine(step / steps)
        factor = torch.where(value > 0, 1 - _SHRINK * share, 1 + _SHRINK * share)
        radius = (radius * factor).clamp_max(ball.radius)
        ahead = points + ball.radius * share * ball.ascend(found.gradient).to(points.dtype)
        points = _draw_back(ball.project(ahead, images), images, ball, radius)
    return best


def _draw_back(points: Images, images: Images, ball: Ball, radius: Tensor) -> Images:
    """Return ``points``, moved towards their images until no farther than ``radius``, (N,)."""
    far = ball.distance(points, images).clamp_min(1e-30)
    return images + (points - images) * per_image((radius / far).clamp_max(1), images)
