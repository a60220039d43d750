"""Auto-PGD for random models: every decision on averages over draws that all points share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_attack
from smoothinfer.attacks.eot import Landscape, Seeds, fresh_seeds, searching
from smoothinfer.attacks.losses import OBJECTIVES, Objective
from smoothinfer.attacks.pooling import POOLS
from smoothinfer.errors import choose
from smoothinfer.runtime.modes import under_attack
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels

_MOMENTUM, _ENOUGH = 0.75, 0.75
_DRAWS = 20  # as AutoAttack's version for random defences takes


def apgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 100,
    draws: int | None = None,
    objective: str | Objective = "cross_entropy",
    gradient: str = "mean",
    restarts: int = 1,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Move each image within ``ball`` by PGD that halves its own steps: no step size to choose.

    z = P(x_k + a ascend(g)), x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})), from a = 2
    radii. At checkpoints a is halved, and the climb goes back to its best point, where fewer than
    three quarters of the steps gained, or nothing was gained since the last halving.

    On a random model the published attack looks at its last draw alone: a lucky one halves the
    step, is kept as the best point and counts as success. Here whatever a step compares (its end,
    its beginning, the best point so far) is averaged over ``draws`` draws that are the same for
    all three, and new in the next step. An image leaves the climb when every draw
    of a step errs and 32 fresh ones do. A step costs 1 gradient and up to 2 forward passes for each
    draw.

    Args:
        model: any module from images to logits, random or not, in eval mode.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf` or `L2`, its radius in pixel units.
        steps: number of steps.
        draws: draws of each step; by default 20 where two forward passes differ, else 1.
        objective: a name in ``OBJECTIVES`` or a function (logits, labels) -> (N,).
        gradient: ``"mean"`` climbs the mean objective of the draws, ``"pooled"``, ``"vote"``,
            ``"rank"`` the objective of their pooled answer; see ``POOLS``.
        restarts: random starts; the point with the largest goal is kept.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `searching`.
        generator: source of the start and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or a name unknown.

    Source: Croce, Hein, *Reliable Evaluation of Adversarial Robustness*, 2020, arXiv 2003.01690.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> moved = apgd(net, images, torch.tensor([0, 1, 0]), Linf(8 / 255), steps=10)
    >>> bool(((moved - images).abs() <= 8 / 255 + 1e-6).all())
    True
    """
    goal = choose("objective", OBJECTIVES, objective) if isinstance(objective, str) else objective
    check_attack(model, images, labels, ball, steps=steps, draws=draws, restarts=restarts)
    pool = choose("gradient", POOLS, gradient)
    if len(images) == 0:
        return images
    with (
        under_attack(model),
        isolated_rng(draw_seed(generator)),
        searching(model, images, precision) as random,
    ):
        land = Landscape(model, goal, pool, random)
        climb = _Climb(land, images, labels, ball, draws or (_DRAWS if random else 1))
        for _ in range(restarts):
            climb.start()
            climb.run(steps)
    return climb.found


class _Climb:
    """All images on their way; those every draw gets wrong stay behind."""

    def __init__(
        self, land: Landscape, images: Images, labels: Labels, ball: Ball, draws: int
    ) -> None:
        self.land, self.images, self.labels, self.ball = land, images, labels, ball
        self.draws = draws
        self.found = images.detach().clone()
        first = land.see(images, labels, fresh_seeds(draws))
        self.active = (~land.fooled(images, labels, first)).nonzero().flatten()

    def start(self) -> None:
        """Begin at random points; what an earlier start found stays until it is beaten."""
        images = self.images[self.active]
        point = self.ball.random(images)
        self.state = _State.at(point, 2 * self.ball.radius)

    def run(self, steps: int) -> None:
        """Take the steps, and keep what beats the point that stands in ``found``."""
        marks = _checkpoints(steps)
        last = 0
        for step in range(1, steps + 1):
            if len(self.active) == 0:
                return
            self._step(fresh_seeds(self.draws))
            if step in marks:
                self.state.halve(step - last)
                last = step
        self._keep()

    def _rows(self) -> tuple[Images, Labels]:
        return self.images[self.active], self.labels[self.active]

    def _step(self, seeds: Seeds) -> None:
        (images, labels), state = self._rows(), self.state
        here = self.land.climb(state.point, labels, seeds)
        assert here.slope is not None
        moved = state.ahead(self.ball, images, here.slope)
        there = self.land.see(moved, labels, seeds)
        lead = state.best_is_point
        best = here.value if lead.all() else self.land.see(state.best, labels, seeds).value
        # Where the best point is this one, the very same number says so.
        state.accept(moved, there.value, here.value, torch.where(lead, here.value, best))
        self._leave(self.land.fooled(moved, labels, there))

    def _leave(self, done: Tensor) -> None:
        if not done.any():
            return
        self.found[self.active[done]] = self.state.point[done]
        self.active, self.state = self.active[~done], self.state.rows(~done)

    def _keep(self) -> None:
        images, labels = self._rows()
        if len(images) == 0:
            return
        seeds = fresh_seeds(max(self.draws, 8))
        standing = self.found[self.active]
        new, old = (self.land.see(p, labels, seeds).value for p in (self.state.best, standing))
        self.found[self.active] = _pick(new > old, self.state.best, standing)


@dataclass
class _State:
    """Where the climb of each image stands; all tensors have one row for each."""

    point: Images
    before: Images
    best: Images
    best_is_point: Tensor
    size: Tensor  # (N,) in pixel units
    gains: Tensor  # (N,) steps that gained since the last checkpoint
    improved: Tensor  # (N,) whether the best point moved since the last checkpoint
    halved: Tensor  # (N,) whether the step was halved at the last checkpoint

    @classmethod
    def at(cls, point: Images, size: float) -> _State:
        rows = point.shape[:1]
        no = torch.zeros(rows, dtype=torch.bool, device=point.device)
        sizes = torch.full(rows, size, device=point.device, dtype=point.dtype)
        return cls(point, point, point, ~no, sizes, torch.zeros_like(sizes), no, ~no)

    def rows(self, kept: Tensor) -> _State:
        return _State(*(value[kept] for value in vars(self).values()))

    def ahead(self, ball: Ball, images: Images, slope: Tensor) -> Images:
        """Return the next point."""
        step = self.size.view(-1, 1, 1, 1) * ball.ascend(slope)
        target = ball.project(self.point + step, images)
        first = self.point is self.before
        share = 1.0 if first else _MOMENTUM
        drift = share * (target - self.point) + (1 - share) * (self.point - self.before)
        return ball.project(self.point + drift, images)

    def accept(self, moved: Images, there: Tensor, here: Tensor, best: Tensor) -> None:
        """Go to ``moved``; the three values are under the same draws."""
        self.gains = self.gains + (there > here)
        better = there > best
        self.best = _pick(better, moved, self.best)
        self.improved = self.improved | better
        self.best_is_point = better
        self.before, self.point = self.point, moved

    def halve(self, steps: int) -> None:
        """At a checkpoint, halve the steps that do not gain, and go back to the best point."""
        slow = self.gains < _ENOUGH * steps
        stuck = ~self.halved & ~self.improved
        back = slow | stuck
        self.size = torch.where(back, self.size / 2, self.size)
        self.point = _pick(back, self.best, self.point)
        self.before = _pick(back, self.best, self.before)
        self.best_is_point = self.best_is_point | back
        self.halved = back
        self.gains, self.improved = torch.zeros_like(self.gains), torch.zeros_like(self.improved)


def _pick(where: Tensor, one: Images, other: Images) -> Images:
    return torch.where(where.view(-1, 1, 1, 1), one, other)


def _checkpoints(steps: int) -> set[int]:
    """Return ceil(p_j * steps) with p = 0.22, then gaps that shrink by 0.03 to 0.06.

    >>> sorted(_checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    marks, at, gap = set(), 0.22, 0.22
    while at <= 1:
        marks.add(-(-round(at * steps * 1000) // 1000))
        gap = max(gap - 0.03, 0.06)
        at += gap
    return marks
