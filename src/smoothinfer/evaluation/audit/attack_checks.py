"""Checks 5 to 8 and 12: does the attack do what attacks do when nothing hides the model?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from smoothinfer.attacks import OBJECTIVES, fgsm, pgd, square
from smoothinfer.attacks.eot import Landscape, Seen, fresh_seeds
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    CLEAR,
    SKIPPED,
    Check,
    Finding,
    judged,
    more_than,
    worse,
)
from smoothinfer.evaluation.audit.context import Subject
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images

_CURVE_DRAWS = 8


def optimisation(subject: Subject) -> Finding:
    """Check 5: more steps and restarts must not help, and the loss must have settled."""
    told, drops = [], []
    tries = {
        f"{times * subject.steps} steps": subject.pgd(times * subject.steps)
        for times in subject.effort.longer
    }
    starts = subject.effort.restarts * subject.starts
    tries[f"{starts} starts"] = subject.pgd(restarts=starts)
    for name, run in tries.items():
        drops.append(worse(*subject.against(name, run)))
        told.append(f"{name} break {drops[-1].points:.1f} points more")
    rising = _still_rising(subject)
    told.append(f"{100 * rising.float().mean():.1f} % of images still rise")
    alarm = (
        "The attack had not finished: with more steps or starts it breaks more. Quote the "
        "accuracy under the longer attack."
    )
    if more_than(rising, 0.05):
        return OPTIMISATION.finding(ALARM, "; ".join(told), alarm)
    return judged(OPTIMISATION, drops, "; ".join(told), alarm, "The attack had come to rest.")


def _still_rising(subject: Subject) -> Tensor:
    """Return the images whose goal gains more than 5 % in the last 10 steps, (N,)."""
    goals = torch.stack([seen.value for _, seen in _path(subject)])
    best = goals.cummax(0).values
    whole = (best[-1] - best[0]).clamp_min(1e-3)
    gained = best[-1] - best[-11] if len(best) > 11 else torch.zeros_like(whole)
    # The right images alone: where the attack has won, its goal may rise for ever.
    right = subject.right(subject.direct()[subject.few()], "rising", rows=subject.few())
    return (gained / whole > 0.05) & right & (gained > 0.05)


def _path(subject: Subject) -> list[tuple[Images, Seen]]:
    """Return the points of the direct attack on a few images, judged by the same draws."""

    def walk() -> list[tuple[Images, Seen]]:
        part, steps = subject.few(), max(subject.steps, 50)
        images, labels = subject.images[part], subject.labels[part]
        goal = OBJECTIVES["cross_entropy"]
        land = Landscape(subject.model, goal)
        found = []
        with isolated_rng(subject.seed):
            judges = fresh_seeds(_CURVE_DRAWS if subject.random else 1)
            point = subject.ball.random(images)
            for _ in range(steps):
                point = pgd(
                    subject.model,
                    point,
                    labels,
                    subject.ball,
                    steps=1,
                    step_size=2.5 * subject.ball.radius / steps,
                    draws=subject.draws,
                    random_start=False,
                )
                point = subject.ball.project(point, images)
                found.append((point, land.see(point, labels, judges)))
        return found

    kept: list[tuple[Images, Seen]] = subject.once("path", walk)
    return kept


def radii(subject: Subject) -> Finding:
    """Check 6: in a ball that holds every image nothing survives; larger balls break more."""
    part = subject.few()
    radius = subject.ball.radius
    kind: Callable[[float], Ball] = type(subject.ball)
    whole = 1.0 if isinstance(subject.ball, Linf) else float(subject.images[0].numel()) ** 0.5
    kept: dict[float, Tensor] = {}
    for size in (0.5 * radius, radius, min(2 * radius, whole), whole):
        ball = kind(size)
        run = subject.pgd(radius=size)
        moved = subject.attack(f"radius {size:.4g}", run, rows=part, ball=ball)
        kept[size] = subject.right(moved, "radii", rows=part)
    told = ", ".join(f"{size:.3g}: {100 * k.float().mean():.1f} %" for size, k in kept.items())
    ordered = list(kept.values())
    rises = [worse(large, small) for small, large in pairwise(ordered)]
    alarm = (
        "Images survive an attack that may turn them into anything, or a larger ball breaks "
        "fewer: the attack does not see what the model does (masked gradients)."
    )
    if float(ordered[-1].float().mean()) > 0.01:
        return RADII.finding(ALARM, told, alarm)
    return judged(RADII, rises, told, alarm, "Larger balls break more, the largest everything.")


def single_steps(subject: Subject) -> Finding:
    """Check 7: neither one step nor chance may beat the iterated attack."""
    rows = subject.survivors()
    one = subject.attack("fgsm", partial(fgsm, draws=subject.draws))
    drop = worse(subject.attacked(), subject.right(one, "fresh"))
    broken = _broken_by_chance(subject, rows)
    share = 100 * broken / max(1, len(rows))
    more = "more" if drop.points > 0 else "fewer"
    told = f"FGSM breaks {abs(drop.points):.1f} points {more} than PGD; "
    told += f"random points break {share:.1f} % of survivors"
    alarm = (
        "One step, or chance, finds what the iterated attack misses: its gradients lead "
        "nowhere (masking)."
    )
    if share > 0.5 and broken >= 2:
        return SINGLE_STEPS.finding(ALARM, told, alarm)
    return judged(SINGLE_STEPS, [drop], told, alarm, "Iteration beats one step, and chance.")


def _broken_by_chance(subject: Subject, rows: Tensor) -> int:
    """Return how many survivors a random point breaks, by two votes, each with fresh noise."""
    rows = rows[subject.attacked()[rows]][: subject.effort.few]
    images, labels = subject.images[rows], subject.labels[rows]
    land = Landscape(subject.model, OBJECTIVES["margin"])
    broken = torch.zeros(len(rows), dtype=torch.bool, device=images.device)
    with isolated_rng(subject.seed):
        draws = 4 if subject.random else 1
        for number in range(subject.effort.points):
            left = (~broken).nonzero().flatten()
            if len(left) == 0:
                break
            points = subject.ball.random(images[left])
            seen = land.see(points, labels[left], fresh_seeds(draws)).wrong >= 1
            suspects = seen.nonzero().flatten()
            for turn in range(2):  # a lucky draw is none of the point's merit
                where = rows[left[suspects]]
                right = subject.right(points[suspects], "points", number, turn, rows=where)
                suspects = suspects[~right]
            # Nor may the image itself be undecided: without the point it must stand.
            where = rows[left[suspects]]
            stands = subject.right(subject.images[where], "points", number, rows=where)
            broken[left[suspects[stands]]] = True
    return int(broken.sum())


def queries(subject: Subject) -> Finding:
    """Check 8: an attack without gradients must not break what gradients do not."""
    rows = subject.survivors()[: subject.effort.few]
    if not isinstance(subject.ball, Linf) or len(rows) == 0:
        told = "no survivors" if len(rows) == 0 else "Square moves within Linf only"
        return QUERIES.finding(SKIPPED, told, "Nothing to try.")
    draws = 4 if subject.random else 1
    run = partial(square, queries=subject.effort.queries, draws=draws)
    before, after = subject.attacked(), subject.attacked().clone()
    after[rows] &= subject.right(subject.attack("square", run, rows=rows), "fresh", rows=rows)
    drop, broken = worse(before, after, points=0.2), int((before & ~after).sum())
    return judged(
        QUERIES,
        [drop],
        f"breaks {broken} of {len(rows)} survivors ({drop.points:.1f} points)",
        "Random search breaks images that gradients do not: the white-box attack cannot be "
        "relied on here.",
        "Random search finds no more than gradients do.",
    )


def endings(subject: Subject) -> Finding:
    """Check 12: success on the way must last to the end, and the loss must be known."""
    path = _path(subject)
    wrong = torch.stack([seen.wrong for _, seen in path])
    certain = 1.0 if not subject.random else 0.75
    passed = (wrong[:-1] >= certain).any(0) & (wrong[-1] <= 1 - certain)
    lost = 100 * float(passed.float().mean())
    swing = _fluctuation(subject, path[-1][0])
    told = f"{lost:.1f} % won on the way and lost at the end; loss known to {swing:.1f} %"
    if (lost > 0.5 and int(passed.sum()) >= 2) or swing > 10:
        return ENDINGS.finding(
            ALARM,
            told,
            "The attack passes through success and leaves it, or its loss cannot be told apart "
            "from noise: keep the best point, judged on averages, or average over more draws.",
        )
    return ENDINGS.finding(CLEAR, told, "What is won stays won.")


def _fluctuation(subject: Subject, points: Images) -> float:
    """Return by how many per cent two estimates of the mean loss differ."""
    if not subject.random:
        return 0.0
    land = Landscape(subject.model, OBJECTIVES["cross_entropy"])
    labels = subject.labels[subject.few()]
    with isolated_rng(subject.seed):
        one, two = (land.see(points, labels, fresh_seeds(16)).value for _ in range(2))
    return 100 * float((one - two).abs().mean() / (one + two).mean().clamp_min(1e-6) * 2**0.5)


OPTIMISATION = Check(
    5,
    "finished optimisation",
    "PGD with more steps and with restarts on the survivors; the goal along the way",
    "at least 1 point more breaks (McNemar), or more than 5 % of images still rise (p < 0.001)",
    optimisation,
)
RADII = Check(
    6,
    "radii",
    "PGD at half, one and two radii, and where the ball holds every image",
    "more than 1 % survive the last, or a larger ball breaks fewer",
    radii,
)
SINGLE_STEPS = Check(
    7,
    "one step and chance",
    "FGSM beside PGD; random points of the ball around survivors, confirmed by fresh votes",
    "FGSM is 1 point stronger (McNemar p < 0.001), or chance breaks more than 0.5 %",
    single_steps,
)
QUERIES = Check(
    8,
    "without gradients",
    "Square on the survivors, its loss over several draws, fresh votes",
    "it breaks 0.2 points more (McNemar p < 0.001)",
    queries,
)
ENDINGS = Check(
    12,
    "silent success",
    "wrong draws along the way of PGD; two estimates of the loss at its end",
    "more than 0.5 % won and lost again, or the loss is known to no better than 10 %",
    endings,
)
