"""Projected gradient descent: FGSM, PGD and EPGD are one loop."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_counts, check_options
from smoothinfer.attacks.eot import BestPoints, EOTLoss, fresh_seeds, pooled_gradient
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.gradients import mean_gradient
from smoothinfer.attacks.losses import POOLS, AttackLoss, checked_loss, divergence_from, towards
from smoothinfer.attacks.nes_attack import query_gradient
from smoothinfer.errors import InputError, check_labels, choose, plain_float, plain_int
from smoothinfer.numerics.balls import Ball, per_image
from smoothinfer.numerics.precision import autocast_to
from smoothinfer.numerics.randomness import draw_seed, isolated_rng, normal
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Labels

_JUDGING_DRAWS = 8


def cosine(progress: float) -> float:
    """Return 1 at progress 0 and 0 at progress 1, along a half wave.

    >>> cosine(0.0), round(cosine(0.5), 3), cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return 0.5 * (1 + math.cos(math.pi * progress))


_LENGTHS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": cosine,
}

Gradient = Callable[[nn.Module, Images, Labels, AttackLoss, int], Tensor]

GRADIENTS: dict[str, Gradient] = {
    "mean": mean_gradient,
    **{name: partial(pooled_gradient, pool=pool) for name, pool in POOLS.items() if pool},
    "queries": query_gradient,
}


@gated
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
    loss: str | AttackLoss = "cross_entropy",
    random_start: bool | float = True,
    start: Images | None = None,
    accumulate: bool = False,
    momentum: float = 0.0,
    schedule: str = "constant",
    targets: Labels | int | None = None,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Move each image within ``ball`` so that ``model`` errs: PGD, or EPGD for ``draws`` > 1.

    x <- P(x + step_size * ascend((1/M) sum_i grad loss(model(x), y))), M = ``draws``
    fresh draws of the model's own noise, P the projection on the ball and on [0, 1].

    The model is used in eval mode (its noise stays on), since batch normalisation in training mode
    would change under the attack. The last iterate is returned: the best of many noisy steps would
    overstate the attack.

    Args:
        model: any module from images to logits, random or not.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf` or `L2`, its radius in pixel units.
        steps: number of steps k.
        step_size: length of a step in pixel units; a quarter of the radius by default.
        draws: noise draws M in each gradient.
        gradient: ``"mean"`` takes the gradient of the mean loss over the draws, ``"pooled"`` of the
            loss of their mean probability (SmoothAdv), ``"vote"`` and ``"rank"`` of the loss of
            surrogates of the hard votes, ``"queries"`` an estimate from answers alone; or a
            function.
        restarts: independent starts; for each image the one with the largest mean loss over at
            least 8 fresh draws is kept.
        loss: a name in ``ATTACK_LOSSES`` or a function (logits, labels) -> (N,).
        random_start: begin at a random point of the ball; for a number s, at the image + N(0, s^2),
            as TRADES does; for ``False``, at the image itself.
        start: (N, C, H, W) points of the ball where the first start begins instead.
        accumulate: never zero the gradient, as the reference code does.
        momentum: share m of the direction before in m * direction + gradient / ||gradient||_1.
        schedule: of the steps: ``"constant"``, or ``"cosine"``, which fall from ``step_size`` to 0.
        targets: (N,) classes to move towards, or one for all images: the loss is then minus the
            cross-entropy of the target. By default the attack moves away from ``labels``.
        precision: of the gradients: ``"auto"`` (bfloat16 where the device multiplies it in
            hardware), ``"bf16"`` or ``"fp32"``. Restarts are compared in fp32.
        generator: source of the start and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or batch
            normalisation is in training mode.

    Source: Madry et al. 2018, arXiv 1706.06083; Nemcovsky et al. 2019, equations (2), (24);
    momentum: Dong et al. 2018, arXiv 1710.06081.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> adversarial = pgd(net, images, torch.tensor([0, 1, 0]), Linf(8 / 255), steps=7)
    >>> bool(((adversarial - images).abs() <= 8 / 255 + 1e-6).all())
    True
    """
    gradient_of = choose("gradient", GRADIENTS, gradient) if isinstance(gradient, str) else gradient
    if targets is not None:
        if loss != "cross_entropy":
            raise InputError(f"targets imply a loss: leave out {loss!r}")
        if isinstance(targets, int):
            targets = torch.full_like(labels, plain_int("targets", targets, at_least=0))
        check_labels(targets, images)
        loss, labels = towards, targets
    maximised = checked_loss(loss)
    check_counts(steps=steps, draws=draws, restarts=restarts)
    size = ball.radius / 4 if step_size is None else plain_float("step_size", step_size, at_least=0)
    plain_float("momentum", momentum, at_least=0, at_most=1)
    if not isinstance(random_start, bool):
        plain_float("random_start", random_start, at_least=0)
    if accumulate and momentum:
        raise InputError("accumulate is a momentum of its own: leave one of them out")
    length = choose("schedule", _LENGTHS, schedule)
    if len(images) == 0:
        return images

    def run(points: Images) -> Images:
        total = torch.zeros_like(points, dtype=torch.float64)
        for step in range(steps):
            with autocast_to(precision, images.device):
                found = gradient_of(model, points, labels, maximised, draws)
            if momentum:
                found = momentum * total + found / per_image(_size(found), found)
            total = total + found if accumulate else found
            ahead = size * length(step / steps) * ball.ascend(total).to(points.dtype)
            points = ball.project(points + ahead, images)
        return points

    def begin() -> Images:
        return _start(images, ball, random_start)

    with attack_mode(model), isolated_rng(draw_seed(generator)):
        points = run(begin() if start is None else ball.project(start, images))
        if restarts == 1:
            return points
        # The same fresh draws judge every start: none must win by luck.
        seeds = fresh_seeds(max(draws, _JUDGING_DRAWS))
        best = BestPoints(EOTLoss(model, maximised), points, labels, seeds)
        for _ in range(restarts - 1):
            best.offer(run(begin()))
    return best.points


@gated
def fgsm(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    draws: int = 1,
    loss: str | AttackLoss = "cross_entropy",
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
    options: dict[str, Any] = {"draws": draws, "loss": loss, "precision": precision}
    options |= {"steps": 1, "step_size": ball.radius, "random_start": False}
    return pgd(model, images, labels, ball, generator=generator, **options)


@gated
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
    """PGD away from the model's own answer: maximises KL(p(image) || p(x)), without labels.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        draws: draws of each gradient, and of the answer p(image).
        random_start: as for `pgd`; at the image itself the divergence of a model without noise
            has no gradient.
        options: further options of `pgd`.

    Raises:
        InputError: see `pgd`.

    Source: Zhang et al. 2019, *TRADES*, arXiv 1901.08573, with steps=10 and step_size=0.007.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> kl_pgd(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), Linf(0.1), steps=2).shape
    torch.Size([3, 1, 2, 2])
    """
    check_counts(draws=draws)
    check_options(options, pgd)
    options |= {"draws": draws, "random_start": random_start}
    if len(images) == 0:
        return pgd(model, images, labels, ball, **options)
    with isolated_rng(draw_seed(generator)):
        with torch.no_grad():
            answers = [logits_of(model, images).double().softmax(1) for _ in range(draws)]
        loss = divergence_from(torch.stack(answers).mean(0))
        return pgd(model, images, labels, ball, **{"loss": loss, **options})


def _size(gradient: Tensor) -> Tensor:
    return gradient.abs().flatten(1).sum(1).clamp_min(1e-300)


def _start(images: Images, ball: Ball, random_start: bool | float) -> Images:
    if random_start is True:
        return ball.random(images)
    if not random_start:
        return images.detach()
    return ball.project(images + random_start * normal(images.shape, images), images)
