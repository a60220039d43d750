"""Projected gradient descent: FGSM, PGD and EPGD are one loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_attack, check_options
from smoothinfer.attacks.gradients import GRADIENTS, Gradient
from smoothinfer.attacks.eot import Landscape, fresh_seeds
from smoothinfer.attacks.losses import OBJECTIVES, Objective, cross_entropy, divergence_from
from smoothinfer.errors import InputError, check_labels, choose
from smoothinfer.runtime.modes import under_attack
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.precision import computing, resolve_precision
from smoothinfer.numerics.randomness import draw_seed, isolated_rng, normal
from smoothinfer.types import Images, Labels, Logits

_CHOOSING_DRAWS = 8


def pgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 7,
    step_size: float | None = None,
    draws: int = 1,
    gradient: str | Gradient = "mean",
    restarts: int = 1,
    objective: str | Objective = "cross_entropy",
    random_start: bool | float = True,
    accumulate: bool = False,
    targets: Labels | int | None = None,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Move each image within ``ball`` so that ``model`` errs: PGD, or EPGD for ``draws`` > 1.

    x <- P(x + step_size * ascend((1/M) sum_i grad objective(model(x), y))), M = ``draws``
    fresh draws of the model's own noise, P the projection on the ball and on [0, 1].

    The model is used in eval mode (its noise stays on), since batch normalisation that learns
    would change under the attack. The last iterate is returned: the
    best of many noisy steps would flatter the attack.

    Args:
        model: any module from images to logits, random or not.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf` or `L2`, its radius in pixel units.
        steps: number of steps k.
        step_size: length of a step in pixel units; a quarter of the radius by default.
        draws: noise draws M in each gradient.
        gradient: ``"mean"`` climbs the mean objective over the draws, ``"pooled"`` the objective
            of their mean probability (SmoothAdv), ``"vote"`` and ``"rank"`` that of surrogates of
            the hard votes, ``"queries"`` an estimate from answers alone; or a function.
        restarts: independent starts; the one with the largest mean objective over at least
            8 fresh draws is kept, for each image.
        objective: a name in ``OBJECTIVES`` or a function (logits, labels) -> (N,).
        random_start: begin at a random point of the ball; for a number s, at the image + N(0, s^2),
            as TRADES does; for ``False``, at the image itself.
        accumulate: never zero the gradient (momentum 1), as the reference code does.
        targets: (N,) classes to climb towards, or one for all images, the negative cross-entropy of
            each being the objective; by default away from ``labels``.
        precision: of the gradients: ``"auto"`` (bfloat16 where the device multiplies it in
            hardware), ``"bf16"`` or ``"fp32"``. Starts are compared in fp32 all the same.
        generator: source of the start and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or batch
            normalisation is in training mode.

    Source: Madry et al. 2018, arXiv 1706.06083; Nemcovsky et al. 2019, equations (2), (24).

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> moved = pgd(net, images, torch.tensor([0, 1, 0]), Linf(8 / 255), steps=7)
    >>> bool(((moved - images).abs() <= 8 / 255 + 1e-6).all())
    True
    """
    goal = choose("objective", OBJECTIVES, objective) if isinstance(objective, str) else objective
    slope = choose("gradient", GRADIENTS, gradient) if isinstance(gradient, str) else gradient
    if targets is not None:
        if objective != "cross_entropy":
            raise InputError(f"targets have an objective of their own: leave out {objective!r}")
        targets = torch.full_like(labels, targets) if isinstance(targets, int) else targets
        check_labels(targets, images)
        goal, labels = _towards, targets
    check_attack(model, images, labels, ball, steps=steps, draws=draws, restarts=restarts)
    resolve_precision(precision, images.device)
    size = ball.radius / 4 if step_size is None else step_size
    if size < 0:
        raise InputError(f"step_size must not be negative, not {size}")

    if len(images) == 0:
        return images

    def climb() -> Images:
        moved = _start(images, ball, random_start)
        total = torch.zeros_like(moved)
        for _ in range(steps):
            with computing(precision, images.device):
                found = slope(model, moved, labels, goal, draws)
            total = total + found if accumulate else found
            moved = ball.project(moved + size * ball.ascend(total), images)
        return moved

    with under_attack(model), isolated_rng(draw_seed(generator)):
        best = climb()
        if restarts == 1:
            return best
        # The same fresh draws judge every start: none must win by luck.
        judges = fresh_seeds(max(draws, _CHOOSING_DRAWS))
        land = Landscape(model, goal)
        highest = land.see(best, labels, judges).value
        for _ in range(restarts - 1):
            moved = climb()
            value = land.see(moved, labels, judges).value
            better = value > highest
            best = torch.where(better.view(-1, 1, 1, 1), moved, best)
            highest = torch.where(better, value, highest)
    return best


def fgsm(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    draws: int = 1,
    objective: str | Objective = "cross_entropy",
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """One step of the full radius from the image itself: x + radius * ascend(gradient).

    Arguments and errors are those of `pgd`.

    Source: Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572; Nemcovsky et al., equation (1).

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> fgsm(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), Linf(0.1)).shape
    torch.Size([3, 1, 2, 2])
    """
    return pgd(
        model,
        images,
        labels,
        ball,
        steps=1,
        step_size=ball.radius,
        draws=draws,
        objective=objective,
        random_start=False,
        precision=precision,
        generator=generator,
    )


def kl_pgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    draws: int = 1,
    random_start: bool | float = 0.001,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Images:
    """PGD away from the model's own answer: climbs KL(p(image) || p(x)), and looks at no label.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        draws: draws of each gradient, and of the answer p(image).
        random_start: as for `pgd`; at the image itself the divergence of a model without noise
            has no gradient.
        options: further options of `pgd`.

    Raises:
        InputError: what `pgd` refuses.

    Source: Zhang et al. 2019, *TRADES*, arXiv 1901.08573, with steps=10 and step_size=0.007.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> kl_pgd(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), Linf(0.1), steps=2).shape
    torch.Size([3, 1, 2, 2])
    """
    check_attack(model, images, labels, ball, draws=draws)
    check_options(options, pgd)
    if len(images) == 0:
        return pgd(model, images, labels, ball, draws=draws, random_start=random_start, **options)
    with isolated_rng(draw_seed(generator)):
        with torch.no_grad():
            answers = [model(images).float().softmax(1) for _ in range(draws)]
        goal = divergence_from(torch.stack(answers).mean(0))
        how = {"draws": draws, "random_start": random_start, "objective": goal, **options}
        return pgd(model, images, labels, ball, **how)


def _start(images: Images, ball: Ball, random_start: bool | float) -> Images:
    if random_start is True:
        return ball.random(images)
    if not random_start:
        return images.detach()
    return ball.project(images + random_start * normal(images.shape, images), images)


def _towards(logits: Logits, targets: Labels) -> Tensor:
    return -cross_entropy(logits, targets)
