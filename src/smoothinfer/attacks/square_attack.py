"""Square: random search with squares; it needs no gradient, so no noise can hide one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_attack
from smoothinfer.attacks.eot import Landscape, fresh_seeds, searching
from smoothinfer.attacks.losses import margin
from smoothinfer.attacks.pooling import log_mean_probability
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels

# Of 10,000 queries: where the share of pixels in a square is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_DRAWS = 20


@torch.no_grad()
def square(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    queries: int = 5000,
    share: float = 0.8,
    draws: int | None = None,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Repaint a random square of the image by +-radius in each channel; keep it if it hurts.

    It hurts if the margin of the mean probability over ``draws`` draws falls, the same draws with
    and without the square. A square's area is ``share`` of the image at first, and is halved nine
    times. Images leave when every draw errs, and 32 fresh ones do.

    Args:
        model: any module from images to logits, in eval mode; only its answers are used.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf`.
        queries: squares tried, each a query for every draw (two on a random model).
        share: of the image's area, in (0, 1].
        draws: draws of a query; by default 20 where two forward passes differ, else 1.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `searching`.
        generator: source of the squares and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or the ball is not
            `Linf`.

    Source: Andriushchenko et al. 2020, *Square Attack*, arXiv 1912.00049.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> moved = square(net, images, torch.tensor([0, 1, 0]), Linf(0.1), queries=20)
    >>> bool(((moved - images).abs() <= 0.1 + 1e-6).all())
    True
    """
    check_attack(model, images, labels, ball, queries=queries, draws=draws)
    if not isinstance(ball, Linf):
        raise InputError(f"square moves within Linf only, not {ball}")
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], not {share}")
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), searching(model, images, precision) as random:
        count = draws or (_DRAWS if random else 1)
        land = Landscape(model, margin, log_mean_probability, random)
        return _search(land, images, labels, ball, queries, share, count)


def _search(
    land: Landscape,
    images: Images,
    labels: Labels,
    ball: Linf,
    queries: int,
    share: float,
    draws: int,
) -> Images:
    found = images.clone()
    stripes = _signs(images.shape[0], images.shape[1], 1, images.shape[3], like=images)
    at = ball.project(images + ball.radius * stripes, images)
    clean = land.see(images, labels, fresh_seeds(draws))
    active = (~land.fooled(images, labels, clean)).nonzero().flatten()
    at = at[active]
    value = None  # of a model that is not random, known from the step before
    for query in range(queries):
        if len(active) == 0:
            break
        rows, classes, seeds = images[active], labels[active], fresh_seeds(draws)
        if land.random or value is None:
            value = land.see(at, classes, seeds).value
        area = share / 2 ** sum(query * 10_000 >= mark * queries for mark in _HALVINGS)
        tried = _painted(at, rows, ball, area)
        seen = land.see(tried, classes, seeds)
        better = seen.value > value
        at = torch.where(better.view(-1, 1, 1, 1), tried, at)
        value = torch.where(better, seen.value, value)
        found[active] = at
        done = better & land.fooled(tried, classes, seen)
        active, at, value = active[~done], at[~done], value[~done]
    return found


def _painted(at: Images, images: Images, ball: Linf, area: float) -> Images:
    """Return ``at`` with a square of each image at +-radius, in a place of its own."""
    count, channels, height, width = at.shape
    side = max(1, min(height, width, round(math.sqrt(area * height * width))))
    top = torch.randint(height - side + 1, (count, 1, 1, 1), device=at.device)
    left = torch.randint(width - side + 1, (count, 1, 1, 1), device=at.device)
    row = torch.arange(height, device=at.device).view(1, 1, -1, 1)
    column = torch.arange(width, device=at.device).view(1, 1, 1, -1)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    paint = images + ball.radius * _signs(count, channels, 1, 1, like=at)
    return ball.project(torch.where(inside, paint, at), images)


def _signs(*shape: int, like: Tensor) -> Tensor:
    return torch.randint(2, shape, device=like.device).to(like.dtype) * 2 - 1
