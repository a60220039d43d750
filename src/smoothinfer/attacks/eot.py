"""What an attack on a random model climbs: a goal over many draws, the same draws for all points.

Two points compare fairly only under common random numbers: the draw that fools a model by luck
then fools it at both. So the draws of a step have seeds, and every value that the step compares is
taken under them. The next step has draws of its own: an attack must not fit the noise.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks.losses import Objective
from smoothinfer.attacks.pooling import Pool
from smoothinfer.errors import check_labels
from smoothinfer.numerics.precision import computing, resolve_precision
from smoothinfer.numerics.randomness import all_isolated
from smoothinfer.types import Images, Labels

Seeds = Sequence[int]
_SURE = 32  # fresh draws that confirm a success
_LOOK = 32  # draws, then twice as many each time, after which points far from a tie are done


@dataclass(frozen=True)
class Seen:
    """What draws say of N points.

    Attributes:
        value: (N,) the goal.
        wrong: (N,) share of draws that do not put the label first.
        slope: (N, C, H, W) gradient of the goal, where it was asked for.
    """

    value: Tensor
    wrong: Tensor
    slope: Tensor | None = None


@dataclass(frozen=True)
class Landscape:
    """The goal of an attack on ``model``, as a function of points and seeds.

    Args:
        model: any module from images to logits, random through the global generator.
        objective: (logits, labels) -> (N,).
        pool: how draws become one answer whose objective is taken; ``None`` takes the mean of
            each draw's objective (EoT).
        random: whether two draws may differ.

    >>> from smoothinfer.attacks.losses import cross_entropy
    >>> land = Landscape(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)), cross_entropy)
    >>> points, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> one, two = (land.see(points, labels, [1, 2]).value for _ in range(2))
    >>> bool((one == two).all())
    True
    """

    model: nn.Module
    objective: Objective
    pool: Pool | None = None
    random: bool = True

    def see(self, points: Images, labels: Labels, seeds: Seeds) -> Seen:
        """Return the goal at ``points`` under ``seeds``."""
        with torch.no_grad():
            logits = torch.stack([seeded(self.model, points, seed) for seed in seeds])
            check_labels(labels, points, logits.shape[2])
            climbed = logits
            if getattr(self.model, "hard", False):  # like with like: what a climb would see
                climbed = torch.stack([asked(self.model, points, seed) for seed in seeds])
            return Seen(self._goal(climbed, labels), _wrong(logits, labels))

    def fooled(self, points: Images, labels: Labels, seen: Seen) -> Tensor:
        """Say which points every draw of ``seen`` gets wrong, and 32 fresh ones: not by luck."""
        done = seen.wrong >= 1
        if self.random and done.any():
            fresh = self.see(points[done], labels[done], fresh_seeds(_SURE))
            done = done.masked_scatter(done, fresh.wrong >= 1)
        return done

    @torch.no_grad()
    def outvoted(self, points: Images, labels: Labels, seeds: Seeds, errors: float = 2.0) -> Tensor:
        """Say where the label is behind another class by more than ``errors`` standard errors.

        Points that are ``errors`` + 3 of them away from a tie, either way, get no more draws.
        """
        lost = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        active, counts, used = torch.arange(len(points), device=points.device), None, 0
        while len(active) and used < len(seeds):
            look = min(max(_LOOK, 2 * used), len(seeds))
            draws = [seeded(self.model, points[active], seed) for seed in seeds[used:look]]
            votes = F.one_hot(torch.stack(draws).argmax(2), draws[0].shape[1]).sum(0)
            counts = votes if counts is None else counts + votes
            used = look
            lead, error = _lead(counts / used, labels[active], used)
            lost[active] = lead > errors * error
            stay = lead.abs() <= (errors + 3) * error.clamp_min(1 / used)
            active, counts = active[stay], counts[stay]
        return lost

    def climb(self, points: Images, labels: Labels, seeds: Seeds) -> Seen:
        """Return the goal at ``points`` and its gradient; memory does not grow with the draws."""
        if self.pool is None:
            return self._climb_mean(points, labels, seeds)
        with torch.no_grad():
            logits = torch.stack([seeded(self.model, points, seed) for seed in seeds])
        check_labels(labels, points, logits.shape[2])
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = self._goal(leaf, labels)
            (pull,) = torch.autograd.grad(value.sum(), leaf)
        slope = torch.zeros_like(points)
        for seed, share in zip(seeds, pull, strict=True):
            slope += _gradient(self.model, points, seed, partial(torch.mul, share))[0]
        return Seen(value.detach(), _wrong(logits, labels), slope)

    def _climb_mean(self, points: Images, labels: Labels, seeds: Seeds) -> Seen:
        slope, logits = torch.zeros_like(points), []

        def goal(found: Tensor) -> Tensor:
            check_labels(labels, points, found.shape[1])
            return self.objective(found, labels)

        for seed in seeds:
            gradient, found = _gradient(self.model, points, seed, goal)
            slope += gradient / len(seeds)
            logits.append(found)
        every = torch.stack(logits)
        return Seen(self._goal(every, labels), _wrong(every, labels), slope)

    def _goal(self, logits: Tensor, labels: Labels) -> Tensor:
        if self.pool is not None:
            return self.objective(self.pool(logits), labels)
        return torch.stack([self.objective(each, labels) for each in logits]).mean(0)


def _lead(shares: Tensor, labels: Labels, draws: int) -> tuple[Tensor, Tensor]:
    """Return by how much the first other class leads the label, (N,), and its standard error."""
    own = shares.gather(1, labels[:, None]).squeeze(1)
    other = shares.scatter(1, labels[:, None], -1.0).amax(1)
    lead = other - own
    return lead, ((other + own - lead.square()) / draws).clamp_min(0).sqrt()


def fresh_seeds(count: int) -> list[int]:
    """Draw ``count`` seeds from the global generator."""
    return torch.randint(2**62, (count,)).tolist()


def seeded(model: nn.Module, images: Images, seed: int) -> Tensor:
    """Return the logits of one draw, that of ``seed``."""
    with all_isolated(seed):
        return model(images)


def asked(model: nn.Module, images: Images, seed: int) -> Tensor:
    """Return the logits of one draw as the model gives them when a gradient is asked for."""
    with torch.enable_grad():
        return seeded(model, images.detach().requires_grad_(), seed).detach()


def is_random(model: nn.Module, images: Images) -> bool:
    """Say whether forward passes differ: of 16, since a random choice may fall the same way."""
    with torch.no_grad():
        first = seeded(model, images[:2], 1)
        others = (seeded(model, images[:2], seed) for seed in range(2, 17))
        return any(not torch.equal(first, other) for other in others)


def repeats(model: nn.Module, images: Images) -> bool:
    """Say whether a pass can be drawn again: not where a module keeps a generator of its own."""
    with torch.no_grad():
        return torch.equal(*(seeded(model, images[:2], 1) for _ in range(2)))


@contextlib.contextmanager
def searching(model: nn.Module, images: Images, precision: str) -> Iterator[bool]:
    """Ask ``model`` in ``precision`` inside; gives whether it is random.

    ``"auto"`` takes bfloat16, where the device multiplies it in hardware, for a random model only:
    there rounding drowns in noise that is averaged anyway. A model without noise stays in fp32,
    since rounding would decide which of two near points is better.

    Raises:
        InputError: the precision is unknown.
    """
    resolve_precision(precision, images.device)
    random = len(images) > 0 and is_random(model, images)
    if random and not repeats(model, images):
        warnings.warn(
            "the model draws random numbers that no seed reaches (a generator of its own?): points "
            "are compared under different draws, and this attack cannot be repeated",
            stacklevel=3,
        )
    exact = precision == "auto" and not random
    with computing("fp32" if exact else precision, images.device):
        yield random


def _gradient(
    model: nn.Module, points: Images, seed: int, goal: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        logits = seeded(model, leaf, seed)
        (slope,) = torch.autograd.grad(goal(logits).sum(), leaf)
    return slope, logits.detach()


def _wrong(logits: Tensor, labels: Labels) -> Tensor:
    return (logits.argmax(2) != labels).float().mean(0)
