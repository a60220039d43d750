"""Checks 5 to 8 and 12: does the attack behave as attacks do when nothing masks the model?"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from smoothinfer.attacks import fgsm, pgd, square
from smoothinfer.attacks.eot import EOTLoss, LossValues, fresh_seeds
from smoothinfer.attacks.losses import ATTACK_LOSSES
from smoothinfer.evaluation.audit.context import AuditContext
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    CLEAR,
    SKIPPED,
    Finding,
    check,
    judge,
    more_than,
    worse,
)
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images

_CURVE_DRAWS = 8


@check(
    5,
    "finished optimisation",
    "PGD with more steps and with restarts on the survivors; the loss along the way",
    "at least 1 point more breaks (McNemar), or more than 5 % of images still rise (p < 0.001)",
)
def optimisation(context: AuditContext) -> Finding:
    """More steps and restarts must not help, and the loss must have converged."""
    measured, drops = [], []
    tries = {
        f"{times * context.steps} steps": context.pgd(times * context.steps)
        for times in context.effort.longer
    }
    starts = context.effort.restarts * context.starts
    tries[f"{starts} starts"] = context.pgd(restarts=starts)
    for name, run in tries.items():
        drops.append(worse(*context.compare_attack(name, run)))
        measured.append(f"{name} break {drops[-1].points:.1f} points more")
    rising = _still_rising(context)
    measured.append(f"{100 * rising.float().mean():.1f} % of losses still rise")
    alarm = (
        "The attack had not finished: with more steps or starts it breaks more. Quote the "
        "accuracy under the longer attack."
    )
    if more_than(rising, 0.05):
        return optimisation.finding(ALARM, "; ".join(measured), alarm)
    clear = "The attack had converged."
    return judge(optimisation, drops, "; ".join(measured), alarm, clear)


def _still_rising(context: AuditContext) -> Tensor:
    """Return the images whose loss gains more than 5 % in the last 10 steps, (N,)."""
    losses = torch.stack([values.value for _, values in _path(context)])
    best = losses.cummax(0).values
    whole = (best[-1] - best[0]).clamp_min(1e-3)
    gained = best[-1] - best[-11] if len(best) > 11 else torch.zeros_like(whole)
    # Correct images alone: where the attack has won, its loss may rise for ever.
    right = context.is_correct(context.direct()[context.few()], "rising", rows=context.few())
    return (gained / whole > 0.05) & right & (gained > 0.05)


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
    "more than 1 % survive the last, or a larger ball breaks fewer",
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
    rises = [worse(large, small) for small, large in pairwise(ordered)]
    alarm = (
        "Images survive an attack that may replace them altogether, or a larger ball breaks "
        "fewer: the attack does not follow the model (masked gradients)."
    )
    if float(ordered[-1].float().mean()) > 0.01:
        return radii.finding(ALARM, measured, alarm)
    clear = "Larger balls break more, the largest everything."
    return judge(radii, rises, measured, alarm, clear)


@check(
    7,
    "one step and chance",
    "FGSM beside PGD; random points of the ball around survivors, confirmed by fresh votes",
    "FGSM is 1 point stronger (McNemar p < 0.001), or chance breaks more than 0.5 %",
)
def single_steps(context: AuditContext) -> Finding:
    """Neither one step nor chance may beat the iterated attack."""
    rows = context.survivors()
    one = context.attack("fgsm", partial(fgsm, draws=context.draws))
    drop = worse(context.attacked(), context.is_correct(one, "fresh"))
    broken = _broken_by_chance(context, rows)
    share = 100 * broken / max(1, len(rows))
    more = "more" if drop.points > 0 else "fewer"
    measured = f"FGSM breaks {abs(drop.points):.1f} points {more} than PGD; "
    measured += f"random points break {share:.1f} % of survivors"
    alarm = (
        "One step, or chance, breaks images that the iterated attack does not: its gradients are "
        "masked."
    )
    if share > 0.5 and broken >= 2:
        return single_steps.finding(ALARM, measured, alarm)
    return judge(single_steps, [drop], measured, alarm, "Iteration beats one step, and chance.")


def _broken_by_chance(context: AuditContext, rows: Tensor) -> int:
    """Return how many survivors a random point breaks, by two votes, each with fresh noise."""
    rows = rows[context.attacked()[rows]][: context.effort.few]
    images, labels = context.images[rows], context.labels[rows]
    eot = EOTLoss(context.model, ATTACK_LOSSES["margin"])
    broken = torch.zeros(len(rows), dtype=torch.bool, device=images.device)
    with isolated_rng(context.seed):
        draws = 4 if context.random else 1
        for number in range(context.effort.points):
            left = (~broken).nonzero().flatten()
            if len(left) == 0:
                break
            points = context.ball.random(images[left])
            wrong = eot.evaluate(points, labels[left], fresh_seeds(draws)).wrong >= 1
            suspects = wrong.nonzero().flatten()
            for turn in range(2):  # a success by a lucky draw does not count
                where = rows[left[suspects]]
                correct = context.is_correct(points[suspects], "points", number, turn, rows=where)
                suspects = suspects[~correct]
            # Nor does an image whose own vote is undecided: without the point it must be correct.
            where = rows[left[suspects]]
            stands = context.is_correct(context.images[where], "points", number, rows=where)
            broken[left[suspects[stands]]] = True
    return int(broken.sum())


@check(
    8,
    "without gradients",
    "Square on the survivors, its loss over several draws, fresh votes",
    "it breaks 0.2 points more (McNemar p < 0.001)",
)
def queries(context: AuditContext) -> Finding:
    """An attack without gradients must not break what gradients do not."""
    rows = context.survivors()[: context.effort.few]
    if not isinstance(context.ball, Linf) or len(rows) == 0:
        reason = "no survivors" if len(rows) == 0 else "Square works within Linf only"
        return queries.finding(SKIPPED, reason, "Nothing to try.")
    draws = 4 if context.random else 1
    run = partial(square, queries=context.effort.queries, draws=draws)
    before, after = context.attacked(), context.attacked().clone()
    after[rows] &= context.is_correct(context.attack("square", run, rows=rows), "fresh", rows=rows)
    drop, broken = worse(before, after, points=0.2), int((before & ~after).sum())
    return judge(
        queries,
        [drop],
        f"breaks {broken} of {len(rows)} survivors ({drop.points:.1f} points)",
        "Random search breaks images that gradients do not: the white-box attack cannot be "
        "relied on here.",
        "Random search finds no more than gradients do.",
    )


@check(
    12,
    "silent success",
    "wrong draws along the way of PGD; two estimates of the loss at its end",
    "more than 0.5 % won and lost again, or the loss is known to no better than 10 %",
)
def endings(context: AuditContext) -> Finding:
    """Success on the way must last to the end, and the loss must be known."""
    path = _path(context)
    wrong = torch.stack([values.wrong for _, values in path])
    certain = 1.0 if not context.random else 0.75
    passed = (wrong[:-1] >= certain).any(0) & (wrong[-1] <= 1 - certain)
    lost = 100 * float(passed.float().mean())
    swing = _fluctuation(context, path[-1][0])
    measured = f"{lost:.1f} % won on the way and lost at the end; loss known to {swing:.1f} %"
    if (lost > 0.5 and int(passed.sum()) >= 2) or swing > 10:
        return endings.finding(
            ALARM,
            measured,
            "The attack passes through success and leaves it, or its loss cannot be told apart "
            "from noise: keep the best point, judged on averages, or average over more draws.",
        )
    return endings.finding(CLEAR, measured, "Successes last to the end.")


def _fluctuation(context: AuditContext, points: Images) -> float:
    """Return by how many per cent two estimates of the mean loss differ."""
    if not context.random:
        return 0.0
    eot = EOTLoss(context.model, ATTACK_LOSSES["cross_entropy"])
    labels = context.labels[context.few()]
    with isolated_rng(context.seed):
        one, two = (eot.evaluate(points, labels, fresh_seeds(16)).value for _ in range(2))
    return 100 * float((one - two).abs().mean() / (one + two).mean().clamp_min(1e-6) * 2**0.5)
