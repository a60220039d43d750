"""The standard attack for random models: from cheap stages to dear ones; who falls leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from smoothinfer.attacks.auto_pgd import apgd
from smoothinfer.attacks.checks import attack_precision
from smoothinfer.attacks.eot import fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.judging import Judge
from smoothinfer.attacks.mixtures import Mixture, by_members, find_mixture
from smoothinfer.attacks.multi_targeted import order_classes
from smoothinfer.attacks.nearest_point import nearest_point
from smoothinfer.attacks.square_attack import square
from smoothinfer.engine.members import member_of
from smoothinfer.errors import choose
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import derive_seed, draw_seed, isolated_rng
from smoothinfer.runtime.modes import attack_mode, count_classes
from smoothinfer.types import Images, Labels


@dataclass(frozen=True)
class Budget:
    """How much each stage may do; 0 leaves a stage out.

    Attributes:
        frozen: passes that are attacked by themselves, in turn.
        steps, draws: of APGD on the cross-entropy and on the margin, and of the nearest point.
        targets, target_steps, target_draws: classes, steps and draws of the multi-targeted stage.
        queries, query_draws: squares, and draws of each.
        orders: of the networks of a finite mixture.
        votes: most draws of the vote that decides whether an image is broken.
    """

    frozen: int
    steps: int
    draws: int
    targets: int
    target_steps: int
    target_draws: int
    queries: int
    query_draws: int
    orders: int
    votes: int

    def without_noise(self) -> Budget:
        """Return the same for a model whose passes are all alike: one draw, and more steps."""
        return Budget(
            frozen=0,
            steps=2 * self.steps,
            draws=1,
            targets=self.targets,
            target_steps=2 * self.target_steps,
            target_draws=1,
            queries=5 * self.queries,
            query_draws=1,
            orders=0,
            votes=1,
        )


BUDGETS: dict[str, Budget] = {
    "quick": Budget(1, 20, 4, 3, 15, 4, 100, 4, 2, 128),
    "standard": Budget(3, 50, 10, 9, 30, 8, 1000, 8, 3, 512),
    "full": Budget(5, 100, 20, 1000, 50, 16, 2000, 20, 10, 1024),
}


class Kept(Protocol):
    """Where the state after each stage is kept, so that a killed attack goes on from there."""

    def load(self) -> dict[str, Tensor] | None: ...

    def save(self, state: dict[str, Tensor]) -> None: ...


Run = Callable[[Images, Labels, Images], Images]  # images, labels, best points so far


@gated
def standard(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    budget: str = "standard",
    precision: str = "auto",
    kept: Kept | None = None,
    generator: torch.Generator | None = None,
) -> Images:
    """The worst case over eight attacks, made for models whose passes differ.

    In this order; an image that a fresh vote gets wrong, by 2 standard errors, leaves:

    1. transfer between passes: APGD on single passes, held fixed;
    2. APGD on the cross-entropy, its gradient and every decision averaged over draws;
    3. the same on the margin;
    4. where the model is a finite mixture, its networks one by one (`by_members`);
    5. APGD on z_t - z_label for one class t after the other, the likeliest first;
    6. the nearest point (`nearest_point`), from the best point so far;
    7. Square, on the mean probability of draws; in L-infinity alone;
    8. APGD on the margin once more, from the best point so far.

    A model without noise is attacked with one draw and twice the steps.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        budget: ``"quick"``, ``"standard"`` or ``"full"``, see ``BUDGETS``.
        precision: see `attack_precision`.
        kept: where to keep the state after each stage, and to find it.

    Raises:
        InputError: images or labels are malformed, or a name is unknown.

    Source: the stages' own; the order is that of Croce, Hein 2020, arXiv 2003.01690.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])
    >>> standard(net, images, labels, Linf(0.1), budget="quick").shape
    torch.Size([3, 1, 2, 2])
    """
    asked = choose("budget", BUDGETS, budget)
    if len(images) == 0:
        return images
    key = draw_seed(generator)
    key = fresh_seeds(1)[0] if key is None else key
    with attack_mode(model), attack_precision(model, images, precision) as random:
        with isolated_rng(derive_seed(key, "judge")):
            judge = Judge(model, images, labels, asked.votes, random)
            mixture = find_mixture(model, images) if random else None
        size = asked if random else asked.without_noise()
        stages = _stages(model, images, ball, size, mixture, key)
        done = _take_up(kept, judge)
        for number, (name, run) in enumerate(stages.items()):
            if number < done or len(rows := judge.standing) == 0:
                continue
            with isolated_rng(derive_seed(key, "stage", name)):
                judge.offer(run(images[rows], labels[rows], judge.points[rows]), rows)
            if kept is not None:
                after = torch.tensor(number + 1)
                kept.save({"points": judge.points, "broken": judge.broken, "stages": after})
    return judge.points


def _take_up(kept: Kept | None, judge: Judge) -> int:
    """Restore the state of an attack that was killed; return the number of stages it did."""
    state = None if kept is None else kept.load()
    if state is None:
        return 0
    judge.points = state["points"].to(judge.points)
    judge.broken = state["broken"].to(judge.broken)
    return int(state["stages"])


def _stages(
    model: nn.Module, images: Images, ball: Ball, size: Budget, mixture: Mixture | None, key: int
) -> dict[str, Run]:
    """Return the stages in their order; an image that falls in one takes part in no later one."""
    search = partial(apgd, model, ball=ball, steps=size.steps, draws=size.draws)

    def frozen(number: int, images: Images, labels: Labels, best: Images) -> Images:
        one = member_of(model, derive_seed(key, "frozen"), number)
        return apgd(one, images, labels, ball, steps=size.steps, draws=1, loss="margin")

    def expected(loss: str, images: Images, labels: Labels, best: Images) -> Images:
        return search(images, labels, loss=loss)

    def members(images: Images, labels: Labels, best: Images) -> Images:
        found: Images = by_members(
            model, images, labels, ball, steps=size.steps, orders=size.orders, mixture=mixture
        )
        return found

    def targeted(place: int, images: Images, labels: Labels, best: Images) -> Images:
        target = order_classes(model, images, labels, size.target_draws)[:, place]
        steps, draws = size.target_steps, size.target_draws
        return apgd(model, images, labels, ball, steps=steps, draws=draws, targets=target)

    def nearest(images: Images, labels: Labels, best: Images) -> Images:
        steps, draws = size.steps, size.draws
        return nearest_point(model, images, labels, ball, start=best, steps=steps, draws=draws)

    def squares(images: Images, labels: Labels, best: Images) -> Images:
        queries, draws = size.queries, size.query_draws
        return square(model, images, labels, ball, queries=queries, draws=draws)

    def once_more(images: Images, labels: Labels, best: Images) -> Images:
        return search(images, labels, loss="margin", start=best)

    others = min(size.targets, count_classes(model, images) - 1)
    stages: dict[str, Run] = {f"pass {n}": partial(frozen, n) for n in range(size.frozen)}
    stages |= {loss: partial(expected, loss) for loss in ("cross_entropy", "margin")}
    stages |= {"members": members} if mixture is not None else {}
    stages |= {f"target {place + 1}": partial(targeted, place) for place in range(others)}
    stages |= {"nearest point": nearest}
    stages |= {"squares": squares} if isinstance(ball, Linf) else {}
    return stages | {"from the best": once_more}
