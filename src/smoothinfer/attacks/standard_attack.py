"""The standard attack for random models: eight attacks, cheap ones first; broken images leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothinfer.attacks.auto_pgd import apgd
from smoothinfer.attacks.checks import attack_precision
from smoothinfer.attacks.eot import fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.judging import Judge
from smoothinfer.attacks.kept_stages import kept_stages, tell_stage
from smoothinfer.attacks.losses import lead_of
from smoothinfer.attacks.mixtures import FiniteMixture, by_members, find_mixture
from smoothinfer.attacks.multi_targeted import order_classes
from smoothinfer.attacks.nearest_point import nearest_point
from smoothinfer.attacks.projected_gradient import pgd
from smoothinfer.attacks.square_attack import square
from smoothinfer.engine.members import member_of
from smoothinfer.errors import choose
from smoothinfer.numerics.balls import Ball, Linf
from smoothinfer.numerics.randomness import derive_seed, draw_seed, isolated_rng
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Labels


@dataclass(frozen=True)
class Budget:
    """How much each stage may do.

    Attributes:
        frozen: passes that are attacked by themselves, in turn.
        steps, draws: of PGD on the cross-entropy and on the margin, and of the nearest point.
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
            queries=min(_MOST_QUERIES, 10 * self.queries),
            query_draws=1,
            orders=0,
            votes=1,
        )


_MOST_QUERIES = 5000  # as in AutoAttack

BUDGETS: dict[str, Budget] = {
    "quick": Budget(1, 20, 4, 3, 20, 4, 50, 4, 2, 128),
    "standard": Budget(2, 40, 8, 9, 40, 8, 300, 4, 3, 512),
    "full": Budget(5, 100, 20, 1000, 80, 16, 2000, 8, 10, 1024),
}


_MOMENTUM = 0.9
# (which images of the batch, these images, their labels, their best points so far) -> new points
Run = Callable[[Tensor, Images, Labels, Images], Images]


@gated
def standard(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    budget: str = "standard",
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """The worst case over eight attacks, made for models whose passes differ.

    In this order; an image that a fresh vote gets wrong, by 2 standard errors, leaves:

    1. transfer between passes: APGD on single passes, held fixed;
    2. PGD with momentum on the cross-entropy, each gradient averaged over draws;
    3. the same on the margin;
    4. where the model is a finite mixture, its networks one by one (`by_members`);
    5. the same on z_t - z_label for one class t after the other, the likeliest first;
    6. the nearest point (`nearest_point`), from the best point so far;
    7. Square, on the mean probability of draws; in L-infinity alone;
    8. PGD with momentum on the margin once more, from the best point so far.

    On a model without noise APGD takes the place of PGD with momentum, with twice the steps.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        budget: ``"quick"``, ``"standard"`` or ``"full"``, see ``BUDGETS``.
        precision: see `attack_precision`.

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
            order = order_classes(model, images, labels, size.target_draws)[:, : size.targets]
        stages = _stages(model, ball, size, order, mixture, random, key)
        kept = kept_stages()
        done = judge.take_up(None if kept is None else kept.load())
        for number, (name, run) in enumerate(stages.items()):
            if number < done or len(rows := judge.standing) == 0:
                continue
            tell_stage(f"standard, {name}: {len(rows)}/{len(images)} left")
            with isolated_rng(derive_seed(key, "stage", name)):
                judge.offer(run(rows, images[rows], labels[rows], judge.points[rows]), rows)
            if kept is not None:
                kept.save(judge.state(number + 1))
    return judge.points


def _stages(
    model: nn.Module,
    ball: Ball,
    size: Budget,
    order: Tensor,
    mixture: FiniteMixture | None,
    random: bool,
    key: int,
) -> dict[str, Run]:
    """Return the stages in their order; an image that falls in one takes part in no later one.

    Args:
        model, ball: of the attack.
        size: of the stages.
        order: (N, T) classes to move each image towards, the likeliest first.
        mixture: the networks by which the model answers, if they are few.
        random: whether passes differ.
        key: names the passes that are held fixed.
    """
    ascend = partial(_ascend, model, ball, random)
    climb = partial(ascend, size.steps, size.draws)
    towards = partial(ascend, size.target_steps, size.target_draws)

    def frozen(number: int, rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        one = member_of(model, derive_seed(key, "frozen"), number)
        return apgd(one, images, labels, ball, steps=size.steps, draws=1, loss="margin")

    def expected(loss: str, rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        return climb(images, labels, loss=loss)

    def members(rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        found: Images = by_members(
            model, images, labels, ball, steps=size.steps, orders=size.orders, mixture=mixture
        )
        return found

    def targeted(place: int, rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        return towards(images, labels, target=order[rows, place])

    def nearest(rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        steps, draws = size.steps, size.draws
        return nearest_point(model, images, labels, ball, start=best, steps=steps, draws=draws)

    def squares(rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        queries, draws = size.queries, size.query_draws
        return square(model, images, labels, ball, queries=queries, draws=draws)

    def once_more(rows: Tensor, images: Images, labels: Labels, best: Images) -> Images:
        return climb(images, labels, start=best)

    stages: dict[str, Run] = {f"pass {n}": partial(frozen, n) for n in range(size.frozen)}
    stages |= {loss: partial(expected, loss) for loss in ("cross_entropy", "margin")}
    stages |= {"members": members} if mixture is not None else {}
    stages |= {f"target {place + 1}": partial(targeted, place) for place in range(order.shape[1])}
    stages |= {"nearest point": nearest}
    stages |= {"squares": squares} if isinstance(ball, Linf) else {}
    return stages | {"from the best": once_more}


def _ascend(
    model: nn.Module,
    ball: Ball,
    random: bool,
    steps: int,
    draws: int,
    images: Images,
    labels: Labels,
    *,
    loss: str = "margin",
    target: Labels | None = None,
    start: Images | None = None,
) -> Images:
    """Climb ``loss``, or towards ``target``: PGD with momentum if ``random``, else APGD.

    APGD asks after each step whether it helped, which the noise hides; on random models PGD with
    momentum left fewer images at less cost (``python -m benchmarks.referee``).
    """
    if not random:
        named = "cross_entropy" if target is not None else loss  # a target brings its own
        return apgd(
            model, images, labels, ball, steps=steps, loss=named, targets=target, start=start
        )
    return pgd(
        model,
        images,
        labels,
        ball,
        steps=steps,
        step_size=ball.radius / (2 if start is None else 8),
        draws=draws,
        loss=loss if target is None else lead_of(target),
        start=start,
        momentum=_MOMENTUM,
        schedule="cosine",
    )
