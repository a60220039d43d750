"""When a vote is decided: fixed, exact curtailment, PPR, and betting for fractional votes.

The votes of one image over passes are independent and identically distributed, whatever happens
to other images. The sequential tests need nothing else.
"""

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from smoothinfer.engine.sums import Sums
from smoothinfer.engine.voting import RULES, Rule
from smoothinfer.errors import MOST_PASSES, InputError, plain_int

_CHECKPOINTS = (17, 24, 32, 48, 64, 96, 128, 192, 256, 384)
_FIRST = 8  # passes to run at once before the first checkpoint
_BETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # fixed fractions lambda in [0, 2), weighted equally


@dataclass(frozen=True)
class VoteSpec:
    """The vote that a stopping rule is to decide.

    Attributes:
        rule: how passes are counted.
        samples: the most passes of an image.
        delta: probability of an answer other than that of infinitely many passes.
        classes: K.
    """

    rule: Rule
    samples: int
    delta: float
    classes: int


class Votes(Protocol):
    """What a stopping rule sees of a `Tally`."""

    passes: int
    counts: Tensor

    def sums(self, rule: Rule) -> Sums: ...


class Stopping:
    """Decides at checkpoints which images need no more passes; the base class never stops early.

    Attributes:
        exactly: whether the answer must be that of all passes.
    """

    exactly = False

    def checkpoints(self) -> list[int]:
        """Return the numbers of passes at which `decided` is asked, in ascending order."""
        raise NotImplementedError

    def planned(self, passes: int, at_once: int) -> int:
        """Return how many passes to ask for next: up to the next checkpoint at least, and as many
        as take hardly longer than one, but no more than have been run.

        Args:
            passes: run so far.
            at_once: passes that run together.
        """
        looks = self.checkpoints()
        soon = next(at for at in looks if at > passes) - passes
        return max(soon, min(at_once, max(_FIRST, passes), looks[-1] - passes))

    def observe(self, rows: Tensor, block: Tensor) -> None:
        """See the logits (S, n, K) of passes of the images ``rows`` (n,)."""

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        """Say for each of ``rows`` whether it needs no more passes, (n,)."""
        raise NotImplementedError


class Fixed(Stopping):
    """All ``samples`` passes for every image."""

    def __init__(self, samples: int) -> None:
        self.samples = plain_int("samples", samples, 1, MOST_PASSES)

    def checkpoints(self) -> list[int]:
        return [self.samples]

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        return torch.full((len(rows),), tally.passes >= self.samples, device=rows.device)


class Exact(Stopping):
    """Stop when no class can catch the leader: the same answer as all ``samples``, always.

    A pass moves one class against another by at most the rule's ``span``.
    """

    exactly = True

    def __init__(self, spec: VoteSpec, images: int) -> None:
        del images
        self.spec = spec

    def checkpoints(self) -> list[int]:
        half, most = self.spec.samples // 2 + 1, self.spec.samples
        return [*range(half, most, max(1, most // 32)), most]

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        sums = tally.sums(self.spec.rule)
        leader = sums.leaders(rows)
        margin = sums.margins(rows, leader, self.spec.samples - tally.passes)
        # A tie at the end goes to the lower class, so against higher ones a tie is enough.
        higher = torch.arange(margin.shape[1], device=margin.device) > leader[:, None]
        safe = (margin > 0) | (higher & (margin == 0))
        return safe.scatter(1, leader[:, None], True).all(1)


class PPR(Stopping):
    """Stop when the leader's lead over the runner-up is very unlikely to come from a tie.

    With a and b votes of the two, stop when the evidence 2^(a+b) a! b! / (a+b+1)! times
    2 P(Bin(a+b+1, 1/2) <= a) reaches (K - 1) / delta. The evidence is the likelihood ratio of a
    share spread evenly over [1/2, 1] against 1/2, a test martingale, so by Ville's inequality the
    answer differs from the class that most passes choose with probability at most delta, whatever
    the checkpoints.

    Source: Jain et al., *PAC Mode Estimation using PPR Martingale Confidence Sequences*, AISTATS
    2022; the factor for one side is ours.
    """

    def __init__(self, spec: VoteSpec, images: int) -> None:
        del images
        if spec.rule.votes is not RULES["prediction"].votes:
            raise InputError("stop='ppr' counts whole votes: use rule='prediction' or 'betting'")
        self.spec = spec
        self.needed = math.log(spec.classes - 1) - math.log(spec.delta)

    def checkpoints(self) -> list[int]:
        most = self.spec.samples
        points = {*_CHECKPOINTS, *growing(_CHECKPOINTS[-1], most, 4 / 3)}
        first = min(_unanimous_votes(self.needed), most)  # fewer passes decide nothing
        return sorted({at for at in points if first < at <= most} | {first})

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        first, second = tally.counts[rows].topk(2, dim=1).values.cpu().numpy().T
        enough = ppr_evidence(first, second) >= self.needed
        return torch.from_numpy(enough & (first > second)).to(rows.device)


class Betting(Stopping):
    """Stop when a bet against every class but the leader has multiplied by 1 / delta.

    One bettor for each class k bets in every pass that the class which leads after the passes
    before, i, gets more votes than k: D = (vote_i - vote_k) / span in [-1, 1]; the capital is the
    mean over fixed fractions lambda of prod (1 + lambda D / 2). When the leader changes, so do
    the bets, and the capital is kept. For fractional votes, such as soft ones.

    Source: Waudby-Smith, Ramdas, *Estimating Means of Bounded Random Variables by Betting*,
    2024, arXiv 2010.09686; the bets on the leader of the moment are ours.
    """

    # Why the answer is wrong with probability at most delta. Let m have the largest expected vote.
    # The leader i is known before the pass, so E[vote_i - vote_m | past] <= 0 whichever i is, and
    # the capital against m is a nonnegative supermartingale that begins with 1. Ville's inequality:
    # it ever reaches 1 / delta with probability at most delta. An answer other than m needs that.
    # No union over classes or leaders is left, so K bettors are enough.

    def __init__(self, spec: VoteSpec, images: int) -> None:
        if not 0 < spec.rule.span < float("inf"):
            raise InputError(
                "stop='betting' needs bounded votes; use rule 'prediction', 'weighted' or 'soft'"
            )
        self.spec, self.passes = spec, 0
        self.bets = torch.tensor(_BETS, dtype=torch.float64).view(-1, 1, 1)
        shape = (images, spec.classes)
        self.sums = torch.zeros(shape, dtype=torch.float64)
        # Logarithms of the capital of each fraction, against each class.
        self.capital = torch.zeros((len(_BETS), *shape), dtype=torch.float64)

    def checkpoints(self) -> list[int]:
        points, at = [], 8
        while at < self.spec.samples:
            points.append(at)
            at += 4 if at < 64 else max(16, at // 64)
        return [*points, self.spec.samples]

    def observe(self, rows: Tensor, block: Tensor) -> None:
        rows, rule = rows.cpu(), self.spec.rule
        sums, capital = self.sums[rows], self.capital[:, rows]
        for logits in block:
            vote = rule.votes(logits.float()).double().cpu() / rule.span
            if self.passes:  # before the first pass nobody leads
                lead = vote.gather(1, sums.argmax(1, keepdim=True)) - vote
                capital += torch.log1p(self.bets * (lead / 2))
            sums += vote
            self.passes += 1
        self.sums[rows], self.capital[:, rows] = sums, capital

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        leader = tally.sums(self.spec.rule).leaders(rows).cpu()
        capital = self.capital[:, rows.cpu()].logsumexp(0) - math.log(len(_BETS))
        against = capital.scatter(1, leader[:, None], torch.inf)
        return (against.amin(1) >= -math.log(self.spec.delta)).to(rows.device)


def growing(first: int, most: int, factor: float) -> list[int]:
    """Return numbers of passes from ``first`` to ``most``, each ``factor`` times the one before.

    >>> growing(20, 70, 1.5), growing(20, 10, 1.5)
    ([20, 30, 45, 68, 70], [10])
    """
    points = [min(first, most)]
    while points[-1] < most:
        points.append(min(most, round(factor * points[-1])))
    return points


def ppr_evidence(leader: ArrayLike, runner_up: ArrayLike, one_sided: bool = True) -> NDArray:
    """log of 2^(a+b) a! b! / (a+b+1)!, times 2 P(Bin(a+b+1, 1/2) <= a) if one-sided.

    Args:
        leader, runner_up: votes a and b, numbers or arrays.
        one_sided: ``False`` leaves out the factor for one side, as published.

    >>> round(float(ppr_evidence(0, 0)), 6)  # no vote is no evidence
    0.0
    """
    from scipy.special import betainc, gammaln

    a, b = np.asarray(leader), np.asarray(runner_up)
    value = (a + b) * math.log(2) + gammaln(a + 1) + gammaln(b + 1) - gammaln(a + b + 2)
    if one_sided:
        value = value + math.log(2) + np.log(betainc(b + 1, a + 1, 0.5))
    return np.asarray(value)


@functools.lru_cache(maxsize=64)
def _unanimous_votes(needed: float) -> int:
    """Return the least number of votes, all for one class, with evidence ``needed``."""
    votes = 1
    while ppr_evidence(votes, 0) < needed:
        votes += 1
    return votes
