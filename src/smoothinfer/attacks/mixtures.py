"""Finite mixtures: a model that answers by one of a few networks, attacked network by network.

The gradient of the expected loss may vanish where every network could be fooled by itself: those of
two networks cancel. So the expected loss is no consistent objective for few networks (Dbouk and
Shanbhag 2022, arXiv 2206.06737): they must be fooled one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_counts, probes
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.gradients import gradient_of
from smoothinfer.attacks.losses import margin
from smoothinfer.attacks.projected_gradient import cosine
from smoothinfer.engine.members import run_draws, run_seeded
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import L2, Ball, per_image, pick_images
from smoothinfer.numerics.randomness import derive_seed, draw_seed, isolated_rng
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Labels, Logits

_MOST, _DRAWS = 12, 96  # networks that are told apart, and draws that look for them
_EUCLIDEAN = L2(1.0)
_EACH = 4  # networks for which each j gets all its steps
_CLOSE = 1e-4  # of the logits' size: the same network, but for rounding


@dataclass(frozen=True)
class FiniteMixture:
    """The networks of a finite mixture.

    Attributes:
        seeds: one seed for each network: under it the model answers by that network.
        shares: of the draws, (M,).
    """

    seeds: tuple[int, ...]
    shares: Tensor


def find_mixture(model: nn.Module, images: Images, most: int = _MOST) -> FiniteMixture | None:
    """Return the networks by which ``model`` answers, if they are ``most`` or fewer; else ``None``.

    96 draws look for them, and give up at the first network too many; none may turn up in the
    second half of the draws.

    >>> find_mixture(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), torch.rand(2, 1, 4, 4)) is None
    True
    """
    shown = probes(images)
    seeds = [derive_seed(0, "mixture", number) for number in range(_DRAWS)]
    found: list[Tensor] = []
    first: list[int] = []
    counts: list[int] = []
    with torch.no_grad():
        for number, seed in enumerate(seeds):
            (logits,) = run_draws(model, shown, [seed])
            which = next((i for i, each in enumerate(found) if _alike(each, logits)), len(found))
            if which < len(found):
                counts[which] += 1
            elif len(found) == most or number >= _DRAWS // 2:
                return None
            else:
                found.append(logits)
                first.append(seed)
                counts.append(1)
    shares = torch.tensor(counts, dtype=torch.float64, device=images.device) / _DRAWS
    return FiniteMixture(tuple(first), shares)


def _alike(one: Tensor, other: Tensor) -> bool:
    size = one.abs().amax().clamp_min(1e-12)
    return bool((one - other).abs().amax() <= _CLOSE * size)


@gated
def by_members(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 40,
    orders: int = 3,
    mixture: FiniteMixture | None = None,
    generator: torch.Generator | None = None,
) -> Images:
    """Fool the networks of a finite mixture one after the other, the nearest ones first.

    For each image and j = 1, 2, ..., the point that fooled the first j - 1 networks best is moved
    so that sum over the first j of share_i min(lead_i, a little) rises, lead_i the largest other
    logit minus the label's: a network that is fooled pulls no more. Kept is the point at which the
    networks that are fooled have the largest share.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        steps: of each j; with more than four networks fewer, so that all j take ``4 * steps``.
        orders: in which networks come: first the nearest (lead over the gradient's norm), then at
            random.
        mixture: the networks; by default `find_mixture` looks for them.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or the model answers
            by more than 12 networks.

    Source: Dbouk, Shanbhag, *Adversarial Vulnerability of Randomized Ensembles*, ICML 2022.

    >>> class Coin(nn.Module):
    ...     def forward(self, images):
    ...         sign = torch.where(torch.rand(()) < 0.5, 1.0, -1.0)
    ...         pixel = images.flatten(1)[:, 0] - 0.5
    ...         return torch.stack([0 * pixel + 0.05, sign * pixel], 1)
    >>> from smoothinfer.numerics.balls import Linf
    >>> images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    >>> found = by_members(Coin(), images, labels, Linf(0.1))
    >>> bool((found - images).abs().max() > 0.05)
    True
    """
    check_counts(steps=steps, orders=orders)
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), attack_mode(model):
        found = find_mixture(model, images) if mixture is None else mixture
        if found is None:
            raise InputError(
                f"the model answers by more than {_MOST} networks: use apgd or multitargeted"
            )
        return _Search(model, images, labels, ball, found, steps).run(orders)


class _Search:
    """The points that fool the largest share of the networks so far."""

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        labels: Labels,
        ball: Ball,
        mixture: FiniteMixture,
        steps: int,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.ball, self.seeds, self.shares = ball, mixture.seeds, mixture.shares
        self.steps = math.ceil(steps * min(1.0, _EACH / len(mixture.seeds)))
        self.best = images
        self.fooled = self.shares.new_full((len(images),), -1.0)  # nothing was tried yet

    def run(self, orders: int) -> Images:
        rank = self._nearest()
        for number in range(orders):
            if number:
                rank = torch.rand(rank.shape, device=rank.device).argsort(1).argsort(1)
            points = self.images
            for size in range(1, len(self.seeds) + 1):
                points = self._climb(points, (rank < size) * self.shares)
        return self.best

    def _nearest(self) -> Tensor:
        """Return the place of each network in the order of its distance, (N, M)."""
        distances = []
        for seed in self.seeds:
            gradient, logits = gradient_of(self._network(seed), self.images, self._lead)
            slope = (gradient * self.ball.ascend(gradient)).flatten(1).sum(1)
            distances.append(-self._lead(logits.double()) / slope.clamp_min(1e-12))
        return torch.stack(distances, 1).argsort(1).argsort(1)

    def _climb(self, points: Images, weights: Tensor) -> Images:
        """Raise the weighted leads, (N, M) weights; return the points that fooled most."""
        top, most = points, self._fooled(points)
        for step in range(self.steps):
            total = torch.zeros_like(points, dtype=torch.float64)
            for seed, weight in zip(self.seeds, weights.unbind(1), strict=True):
                if not bool((weight > 0).any()):
                    continue
                gradient, logits = gradient_of(self._network(seed), points, self._lead)
                still = (self._lead(logits.double()) < self._enough(logits)) * weight
                # Of length 1, so that no network outweighs another by its scale.
                total += per_image(still, total) * _EUCLIDEAN.ascend(gradient)
            size = self.ball.radius * cosine(step / self.steps)
            ahead = points + size * self.ball.ascend(total).to(points.dtype)
            points = self.ball.project(ahead, self.images)
            share = self._fooled(points)
            top = pick_images(share > most, points, top)
            most = torch.maximum(share, most)
        # Where nothing more was fooled, go on from the last point, which lies deeper.
        return pick_images(most > 0, top, points)

    def _fooled(self, points: Images) -> Tensor:
        """Return the share of the networks that are fooled, (N,); keep the best points."""
        with torch.no_grad():
            draws = run_draws(self.model, points, self.seeds)
        wrong = torch.stack([logits.argmax(1) != self.labels for logits in draws], 1)
        share = (wrong * self.shares).sum(1)
        self.best = pick_images(share > self.fooled, points, self.best)
        self.fooled = torch.maximum(share, self.fooled)
        return share

    def _network(self, seed: int) -> Callable[[Images], Logits]:
        return partial(run_seeded, self.model, seed=seed)

    def _lead(self, logits: Tensor) -> Tensor:
        return margin(logits, self.labels)

    def _enough(self, logits: Tensor) -> Tensor:
        """Return the lead beyond which a network counts as fooled for good, (N,)."""
        return 0.02 * (logits.amax(1) - logits.amin(1)).double()
