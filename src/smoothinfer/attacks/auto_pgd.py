"""Auto-PGD for random models: every decision on averages over draws that all points share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import attack_precision, check_counts
from smoothinfer.attacks.eot import BestPoints, EOTLoss, Seeds, fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.losses import POOLS, AttackLoss, checked_loss, lead_of
from smoothinfer.errors import InputError, check_labels, choose
from smoothinfer.numerics.balls import Ball, per_image, pick_images
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Labels

_MOMENTUM, _ENOUGH = 0.75, 0.75
_DRAWS = 20  # as in AutoAttack's version for random defences


@gated
def apgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 100,
    draws: int | None = None,
    loss: str | AttackLoss = "cross_entropy",
    gradient: str = "mean",
    restarts: int = 1,
    targets: Labels | None = None,
    start: Images | None = None,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Move each image within ``ball`` by PGD that halves its own steps: no step size to choose.

    z = P(x_k + a ascend(g)), x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})), from a = 2
    radii. At checkpoints a is halved, and the search goes back to its best point, where fewer than
    three quarters of the steps raised the loss, or the best loss has not risen since the last
    halving.

    On a random model the published attack judges by its last draw alone: a lucky one halves the
    step, is kept as the best point and counts as success. Here all values that a step compares (at
    its end, at its beginning, at the best point so far) are averaged over ``draws`` draws, the same
    for all three, and new in the next step. An image leaves the search when every draw of a step
    errs and 32 fresh ones do. A step costs 1 gradient and up to 2 forward passes for each draw.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        steps: number of steps.
        draws: draws of each step; by default 20 where two forward passes differ, else 1.
        loss: a name in ``ATTACK_LOSSES`` or a function (logits, labels) -> (N,).
        gradient: ``"mean"`` maximises the mean loss of the draws, ``"pooled"``, ``"vote"``,
            ``"rank"`` the loss of their pooled answer; see ``POOLS``.
        restarts: random starts; the point with the largest loss is kept.
        targets: (N,) classes to move towards: the loss is then z_target - z_label.
        start: (N, C, H, W) points of the ball where the first start begins, instead of random ones.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `attack_precision`.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or a name unknown.

    Source: Croce, Hein, *Reliable Evaluation of Adversarial Robustness*, 2020, arXiv 2003.01690.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> adversarial = apgd(net, images, torch.tensor([0, 1, 0]), Linf(8 / 255), steps=10)
    >>> bool(((adversarial - images).abs() <= 8 / 255 + 1e-6).all())
    True
    """
    maximised = checked_loss(loss)
    check_counts(steps=steps, draws=draws, restarts=restarts)
    pool = choose("gradient", POOLS, gradient)
    if targets is not None:
        if loss != "cross_entropy":
            raise InputError(f"targets imply a loss: leave out {loss!r}")
        check_labels(targets, images)
    if len(images) == 0:
        return images
    with (
        attack_mode(model),
        isolated_rng(draw_seed(generator)),
        attack_precision(model, images, precision) as random,
    ):
        eot = EOTLoss(model, maximised, pool, random)
        search = _Search(eot, images, labels, ball, draws or (_DRAWS if random else 1), targets)
        for number in range(restarts):
            search.start(start if number == 0 else None)
            search.run(steps)
    return search.adversarial


class _Search:
    """All images on their way; those that every draw gets wrong stay behind."""

    def __init__(
        self,
        eot: EOTLoss,
        images: Images,
        labels: Labels,
        ball: Ball,
        draws: int,
        targets: Labels | None = None,
    ) -> None:
        self._eot, self.images, self.labels, self.ball = eot, images, labels, ball
        self.draws, self.targets = draws, targets
        self.adversarial = images.detach().clone()
        clean = eot.evaluate(images, labels, fresh_seeds(draws))
        self.active = (~eot.is_fooled(images, labels, clean)).nonzero().flatten()

    @property
    def eot(self) -> EOTLoss:
        """The loss of the images that are still active."""
        if self.targets is None:
            return self._eot
        return replace(self._eot, loss=lead_of(self.targets[self.active]))

    def start(self, points: Images | None = None) -> None:
        """Begin at ``points``, or random ones; an earlier result stays until it is beaten."""
        images = self.images[self.active]
        begin = self.ball.random(images) if points is None else points[self.active]
        self.state = _State.at(begin, 2 * self.ball.radius)

    def run(self, steps: int) -> None:
        """Take the steps, and keep the best points that beat those in ``adversarial``."""
        checkpoints = _checkpoints(steps)
        last = 0
        for step in range(1, steps + 1):
            if len(self.active) == 0:
                return
            self._step(fresh_seeds(self.draws))
            if step in checkpoints:
                self.state.halve(step - last)
                last = step
        self._keep()

    def _rows(self) -> tuple[Images, Labels]:
        return self.images[self.active], self.labels[self.active]

    def _step(self, seeds: Seeds) -> None:
        (images, labels), state = self._rows(), self.state
        here = self.eot.evaluate_with_gradient(state.point, labels, seeds)
        assert here.gradient is not None
        following = state.ahead(self.ball, images, here.gradient)
        there = self.eot.evaluate(following, labels, seeds)
        at_best = state.best_is_point
        best = here.value
        if not at_best.all():
            best = self.eot.evaluate(state.best, labels, seeds).value
        # Where the best point is the current one, its value is exactly the same number.
        state.accept(following, there.value, here.value, torch.where(at_best, here.value, best))
        self._leave(self.eot.is_fooled(following, labels, there))

    def _leave(self, fooled: Tensor) -> None:
        if not fooled.any():
            return
        self.adversarial[self.active[fooled]] = self.state.point[fooled]
        self.active, self.state = self.active[~fooled], self.state.rows(~fooled)

    def _keep(self) -> None:
        images, labels = self._rows()
        if len(images) == 0:
            return
        seeds = fresh_seeds(max(self.draws, 8))
        best = BestPoints(self.eot, self.adversarial[self.active], labels, seeds)
        best.offer(self.state.best)
        self.adversarial[self.active] = best.points


@dataclass
class _State:
    """The position of each image's search; all tensors have one row for each image."""

    point: Images
    before: Images
    best: Images
    best_is_point: Tensor
    size: Tensor  # (N,) in pixel units
    gains: Tensor  # (N,) steps that raised the loss since the last checkpoint
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

    def ahead(self, ball: Ball, images: Images, gradient: Tensor) -> Images:
        """Return the next point."""
        step = per_image(self.size, images) * ball.ascend(gradient).to(images.dtype)
        target = ball.project(self.point + step, images)
        first = self.point is self.before
        share = 1.0 if first else _MOMENTUM
        drift = share * (target - self.point) + (1 - share) * (self.point - self.before)
        return ball.project(self.point + drift, images)

    def accept(self, following: Images, there: Tensor, here: Tensor, best: Tensor) -> None:
        """Go to ``following``; the three losses are under the same draws."""
        self.gains = self.gains + (there > here)
        better = there > best
        self.best = pick_images(better, following, self.best)
        self.improved = self.improved | better
        self.best_is_point = better
        self.before, self.point = self.point, following

    def halve(self, steps: int) -> None:
        """At a checkpoint, halve the steps that do not gain, and go back to the best point."""
        slow = self.gains < _ENOUGH * steps
        stuck = ~self.halved & ~self.improved
        back = slow | stuck
        self.size = torch.where(back, self.size / 2, self.size)
        self.point = pick_images(back, self.best, self.point)
        self.before = pick_images(back, self.best, self.before)
        self.best_is_point = self.best_is_point | back
        self.halved = back
        self.gains, self.improved = torch.zeros_like(self.gains), torch.zeros_like(self.improved)


def _checkpoints(steps: int) -> set[int]:
    """Return ceil(p_j * steps) with p = 0.22, then gaps that shrink by 0.03 to 0.06.

    >>> sorted(_checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    points, at, gap = set(), 0.22, 0.22
    while at <= 1:
        points.add(-(-round(at * steps * 1000) // 1000))
        gap = max(gap - 0.03, 0.06)
        at += gap
    return points
