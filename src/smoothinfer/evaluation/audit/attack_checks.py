"""Checks 5 to 8 and 12: does the attack behave as attacks do when nothing masks the model?"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from smoothinfer.attacks import fgsm, pgd, square
from smoothinfer.attacks.eot import BestPoints, EOTLoss, LossValues, fresh_seeds
from smoothinfer.attacks.losses import ATTACK_LOSSES
from smoothinfer.evaluation.audit.chance import Outcome, more_than, positive_mean, worse
from smoothinfer.evaluation.audit.context import AuditContext
from smoothinfer.evaluation.audit.finding import (
    RIGHT,
    SKIPPED,
    Finding,
    check,
    judge,
)
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images

_CURVE_DRAWS = 8
_CONFIRMING = 32


@check(
    5,
    "finished optimisation",
    "PGD with more steps and with restarts on the survivors; the loss along the way",
    "at least 1 point more breaks, or more than 5 % of losses still rise (p < 0.001)",
)
def optimisation(context: AuditContext) -> Finding:
    """More steps and restarts must not help, and the loss must have converged."""
    starts = context.effort.restarts * context.starts
    tries = {
        f"{times * context.steps} steps": context.pgd(times * context.steps)
        for times in context.effort.longer
    } | {f"{starts} starts": context.pgd(restarts=starts)}
    tests, measured = len(tries) + 1, []
    outcomes = []
    for name, run in tries.items():
        outcomes.append(worse(*context.compare_attack(name, run), tests=tests))
        measured.append(f"{name} break {outcomes[-1].points:z.1f} points more")
    # Correct images alone: where the attack has won, its loss may rise for ever.
    rows = context.few()
    right = context.is_correct(context.direct()[rows], "rising", rows=rows)
    outcomes.append(more_than(_still_rising(context) & right, 0.05, right, tests))
    measured.append(f"{outcomes[-1].points:.1f} % of losses still rise")
    return judge(
        optimisation,
        outcomes,
        "; ".join(measured),
        "The attack had not finished: with more steps or starts it breaks more. Quote the "
        "accuracy under the longer attack.",
        "The attack had converged.",
    )


def _still_rising(context: AuditContext) -> Tensor:
    """Return the images whose loss gains more than 5 % in the last 10 steps, (N,)."""
    losses = torch.stack([values.value for _, values in _path(context)])
    best = losses.cummax(0).values
    whole = (best[-1] - best[0]).clamp_min(1e-3)
    gained = best[-1] - best[-11] if len(best) > 11 else torch.zeros_like(whole)
    return (gained / whole > 0.05) & (gained > 0.05)


def _path(context: AuditContext) -> list[tuple[Images, LossValues]]:
    """Return the points of the direct attack on a few images, with losses under the same draws."""

    def walk() -> list[tuple[Images, LossValues]]:
        part, steps = context.few(), max(context.steps, 50)
        images, labels = context.images[part], context.labels[part]
        eot = EOTLoss(context.model, ATTACK_LOSSES["cross_entropy"])
        path = []
        with isolated_rng(context.seed):
            judges = fresh_seeds(_CURVE_DRAWS if context.random else 1)
            point = context.ball.random(images)
            for _ in range(steps):
                point = pgd(
                    context.model,
                    point,
                    labels,
                    context.ball,
                    steps=1,
                    step_size=2.5 * context.ball.radius / steps,
                    draws=context.draws,
                    random_start=False,
                )
                point = context.ball.project(point, images)
                path.append((point, eot.evaluate(point, labels, judges)))
        return path

    points: list[tuple[Images, LossValues]] = context.once("path", walk)
    return points


@check(
    6,
    "radii",
    "PGD at half, one and two radii, and where the ball holds every image",
    "more than 1 % survive the last, or a larger ball breaks 1 point fewer (p < 0.001)",
)
def radii(context: AuditContext) -> Finding:
    """In a ball that holds every image nothing survives; larger balls break more."""
    part = context.few()
    radius = context.ball.radius
    kind: Callable[[float], Ball] = type(context.ball)
    whole = 1.0 if isinstance(context.ball, Linf) else float(context.images[0].numel()) ** 0.5
    kept: dict[float, Tensor] = {}
    for size in (0.5 * radius, radius, min(2 * radius, whole), whole):
        ball = kind(size)
        run = context.pgd(radius=size)
        adversarial = context.attack(f"radius {size:.4g}", run, rows=part, ball=ball)
        kept[size] = context.is_correct(adversarial, "radii", rows=part)
    measured = ", ".join(f"{size:.3g}: {100 * k.float().mean():.1f} %" for size, k in kept.items())
    ordered = list(kept.values())
    right, tests = context.clean()[part], len(ordered)
    rises = [
        worse(large, small, tests=tests, candidates=right) for small, large in pairwise(ordered)
    ]
    return judge(
        radii,
        [*rises, more_than(ordered[-1], 0.01, right, tests)],
        f"right within {measured}",
        "Images survive an attack that may replace them altogether, or a larger ball breaks "
        "fewer: the attack does not follow the model (masked gradients).",
        "Larger balls break more, the largest everything.",
        RIGHT,
    )


@check(
    7,
    "one step and chance",
    "FGSM beside PGD; random points of the ball around survivors, confirmed by fresh votes",
    "FGSM breaks 1 point more, or random points more than 0.5 % of survivors (p < 0.001)",
)
def single_steps(context: AuditContext) -> Finding:
    """Neither one step nor chance may beat the iterated attack."""
    one = context.attack("fgsm", partial(fgsm, draws=context.draws))
    drop = worse(context.attacked(), context.is_correct(one, "fresh"), tests=2)
    rows = context.survivors()
    rows = context.choose(rows[context.attacked()[rows]])
    broken = more_than(_broken_by_chance(context, rows), 0.005, tests=2)
    if 100 * len(rows) < len(context.images):  # so few that they do not matter
        broken = Outcome(broken.points, False, False)
    more = "more" if drop.points > 0 else "fewer"
    measured = f"FGSM breaks {abs(drop.points):.1f} points {more} than PGD; "
    measured += f"random points break {broken.points:.1f} % of survivors"
    return judge(
        single_steps,
        [drop, broken],
        measured,
        "One step, or chance, breaks images that the iterated attack does not: its gradients are "
        "masked.",
        "Iteration beats one step, and chance.",
    )


def _broken_by_chance(context: AuditContext, rows: Tensor) -> Tensor:
    """Return which of ``rows`` the worst of many random points breaks, by fresh votes."""
    images, labels = context.images[rows], context.labels[rows]
    broken = torch.ones(len(rows), dtype=torch.bool, device=images.device)
    if len(rows) == 0:
        return broken
    eot = EOTLoss(context.model, ATTACK_LOSSES["margin"], random=context.random)
    with isolated_rng(context.seed):
        best = BestPoints(eot, images, labels, fresh_seeds(4 if context.random else 1))
        for _ in range(context.effort.points):
            best.offer(context.ball.random(images))
    # An image whose own vote is near a tie does not count, nor one that one vote gets wrong.
    for turn in range(3 if context.random else 1):
        broken &= ~context.is_correct(best.points, "points", turn, rows=rows)
        broken &= context.is_correct(images, "no points", turn, rows=rows)
    return broken


@check(
    8,
    "without gradients",
    "Square on the survivors, its loss over several draws, fresh votes",
    "it breaks 0.2 points more (p < 0.001)",
)
def queries(context: AuditContext) -> Finding:
    """An attack without gradients must not break what gradients do not."""
    if not isinstance(context.ball, Linf):
        return queries.finding(SKIPPED, "no L-infinity ball", "Square works within Linf only.")
    rows = context.choose(context.survivors())
    draws = 4 if context.random else 1
    run = partial(square, queries=context.effort.queries, draws=draws)
    before, after = torch.zeros_like(context.attacked()), torch.zeros_like(context.attacked())
    before[rows] = context.attacked()[rows]
    after[rows] = context.is_correct(context.attack("square", run, rows=rows), "fresh", rows=rows)
    drop = worse(before, after, points=0.2)
    return judge(
        queries,
        [drop],
        f"breaks {int((before & ~after).sum())} of {len(rows)} survivors ({drop.points:z.1f} "
        "points)",
        "Random search breaks images that gradients do not: the white-box attack cannot be "
        "relied on here.",
        "Random search finds no more than gradients do.",
    )


@check(
    12,
    "silent success",
    "wrong draws along the way of PGD; the loss at its end over 32 draws",
    "more than 0.5 % won and lost again, or the loss known to no better than 10 % (p < 0.001)",
)
def endings(context: AuditContext) -> Finding:
    """Success on the way must last to the end, and the loss must be known."""
    left = more_than(_left_success(context), 0.005, tests=2)
    swing = _fluctuation(context, _path(context)[-1][0])
    return judge(
        endings,
        [left, swing],
        f"{left.points:.1f} % won on the way and lost at the end; loss known to {swing.points:.1f} "
        "%",
        "The attack passes through success and leaves it, or its loss cannot be told apart "
        "from noise: keep the best point, judged on averages, or average over more draws.",
        "Successes last to the end.",
        "to attack",
    )


def _left_success(context: AuditContext) -> Tensor:
    """Return (N,) which images the attack had won on its way, but not at its end."""
    path = _path(context)
    wrong = torch.stack([values.wrong for _, values in path])
    certain = 0.75 if context.random else 1.0
    highest, step = wrong[:-1].max(0)
    left = (highest >= certain) & (wrong[-1] <= 1 - certain)
    rows = left.nonzero().flatten()
    if not context.random or len(rows) == 0:
        return left
    # Among many steps a lucky draw is likely: fresh draws must agree.
    won = torch.stack([path[int(step[row])][0][row] for row in rows])
    labels = context.labels[context.few()][rows]
    eot = EOTLoss(context.model, ATTACK_LOSSES["cross_entropy"])
    with isolated_rng(context.seed):
        on_way, at_end = (
            eot.evaluate(points, labels, fresh_seeds(_CONFIRMING)).wrong
            for points in (won, path[-1][0][rows])
        )
    left[rows] = (on_way >= certain) & (at_end <= 1 - certain)
    return left


def _fluctuation(context: AuditContext, points: Images) -> Outcome:
    """Say by how many per cent the mean loss of 16 draws is off, on average, if by more than 10."""
    if not context.random:
        return Outcome(0.0, False, False)
    eot = EOTLoss(context.model, ATTACK_LOSSES["cross_entropy"])
    labels = context.labels[context.few()]
    with isolated_rng(context.seed):
        losses = [eot.evaluate(points, labels, [s]).value for s in fresh_seeds(_CONFIRMING)]
    every = torch.stack(losses)
    off, value = math.sqrt(2 / math.pi / 16) * every.std(0), every.mean(0)
    points_off = 100 * float(off.mean() / value.mean().clamp_min(1e-6))
    return positive_mean(off - 0.1 * value, points_off, tests=2)
