"""Square: random search with squares, without gradients, so no noise can mask them."""

import math

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import attack_precision, check_counts
from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.gate import by_queries
from smoothinfer.attacks.losses import checked_loss, log_mean_probability, margin
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import Ball, Linf, pick_images
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels

# The queries, of 10,000, at which the share of pixels in a square is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_DRAWS = 20


@by_queries
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
    """Shift a random square of the image by +-radius in each channel; keep it if the loss rises.

    The loss is the margin of the mean probability over ``draws`` draws, the same draws with and
    without the square. A square's area is ``share`` of the image at first, and is halved nine
    times. Images leave when every draw errs, and 32 fresh ones do.

    Args:
        model, images, labels, ball, generator: as for `pgd`; no gradient of the model is used.
        queries: squares tried, each a query for every draw (two on a random model).
        share: of the image's area, in (0, 1].
        draws: draws of a query; by default 20 where two forward passes differ, else 1.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `attack_precision`.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or the ball is not
            `Linf`.

    Source: Andriushchenko et al. 2020, *Square Attack*, arXiv 1912.00049.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> adversarial = square(net, images, torch.tensor([0, 1, 0]), Linf(0.1), queries=20)
    >>> bool(((adversarial - images).abs() <= 0.1 + 1e-6).all())
    True
    """
    check_counts(queries=queries, draws=draws)
    if not isinstance(ball, Linf):
        raise InputError(f"square works within Linf only, not {ball}")
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], not {share}")
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), attack_precision(model, images, precision) as random:
        count = draws or (_DRAWS if random else 1)
        eot = EOTLoss(model, checked_loss(margin), log_mean_probability, random)
        return _search(eot, images, labels, ball, queries, share, count)


def _search(
    eot: EOTLoss, images: Images, labels: Labels, ball: Linf, queries: int, share: float, draws: int
) -> Images:
    adversarial = images.clone()
    stripes = _signs(images.shape[0], images.shape[1], 1, images.shape[3], like=images)
    points = ball.project(images + ball.radius * stripes, images)
    clean = eot.evaluate(images, labels, fresh_seeds(draws))
    active = (~eot.is_fooled(images, labels, clean)).nonzero().flatten()
    points = points[active]
    value = None  # of a model without noise, known from the step before
    for query in range(queries):
        if len(active) == 0:
            break
        rows, classes, seeds = images[active], labels[active], fresh_seeds(draws)
        if eot.random or value is None:
            value = eot.evaluate(points, classes, seeds).value
        area = share / 2 ** sum(query * 10_000 >= mark * queries for mark in _HALVINGS)
        candidate = _with_square(points, rows, ball, area)
        values = eot.evaluate(candidate, classes, seeds)
        better = values.value > value
        points = pick_images(better, candidate, points)
        value = torch.where(better, values.value, value)
        adversarial[active] = points
        fooled = better & eot.is_fooled(candidate, classes, values)
        active, points, value = active[~fooled], points[~fooled], value[~fooled]
    return adversarial


def _with_square(points: Images, images: Images, ball: Linf, area: float) -> Images:
    """Return ``points`` with a square of each image at +-radius, at a random place."""
    count, channels, height, width = points.shape
    side = max(1, min(height, width, round(math.sqrt(area * height * width))))
    top = torch.randint(height - side + 1, (count, 1, 1, 1), device=points.device)
    left = torch.randint(width - side + 1, (count, 1, 1, 1), device=points.device)
    row = torch.arange(height, device=points.device).view(1, 1, -1, 1)
    column = torch.arange(width, device=points.device).view(1, 1, 1, -1)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    shifted = images + ball.radius * _signs(count, channels, 1, 1, like=points)
    return ball.project(torch.where(inside, shifted, points), images)


def _signs(*shape: int, like: Tensor) -> Tensor:
    return torch.randint(2, shape, device=like.device).to(like.dtype) * 2 - 1
