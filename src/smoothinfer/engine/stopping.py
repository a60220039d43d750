"""When a vote is decided: fixed, exact curtailment, PPR, and betting for votes that are not 0 or 1.

Votes of one image over passes are independent and identically distributed, whatever happens to
other images: that is all the sequential tests need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import gammaln
from scipy.stats import binom
from torch import Tensor

from smoothinfer.errors import InputError, choose
from smoothinfer.engine.voting import RULES, Rule

_LOOKS = (17, 24, 32, 48, 64, 96, 128, 192, 256, 384)
_BETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # fixed fractions lambda in [0, 2), weighted equally


@dataclass(frozen=True)
class Question:
    """What a stopping rule is asked to decide.

    Attributes:
        rule: how passes are counted.
        samples: the most passes an image may use.
        delta: probability of an answer other than that of infinitely many passes.
        classes: K.
    """

    rule: Rule
    samples: int
    delta: float
    classes: int


class Stopping:
    """Which of N images are decided; `add` sees their votes, `decided` answers at a look.

    Attributes:
        exactly: whether the answer must be that of all passes.
    """

    exactly = False

    def __init__(self, question: Question, images: int) -> None:
        self.question = question
        self.passes = 0
        self.sums = torch.zeros(images, question.classes, dtype=torch.float64)

    def looks(self) -> list[int]:
        """Numbers of passes at which `decided` is asked, the last one the most there are."""
        return [self.question.samples]

    def add(self, rows: Tensor, votes: Tensor) -> None:
        """Count passes of the images ``rows`` (n,): what each gives to each class, (S, n, K)."""
        sums = self.sums[rows]
        for vote in votes.double().cpu():  # in order, so that sums do not depend on the block
            sums += vote
        self.sums[rows] = sums

    def decided(self, rows: Tensor, passes: int) -> Tensor:
        """Say for each of ``rows`` whether more passes can be spared after ``passes``."""
        return torch.full((len(rows),), passes >= self.question.samples)


class Exact(Stopping):
    """Stop when nobody can catch the leader: the same answer as all ``samples``, always.

    A pass moves one class against another by at most the rule's ``span``.
    """

    exactly = True

    def looks(self) -> list[int]:
        half, whole = self.question.samples // 2 + 1, self.question.samples
        return [*range(half, whole, max(1, whole // 32)), whole]

    def decided(self, rows: Tensor, passes: int) -> Tensor:
        remaining = self.question.samples - passes
        sums = self.sums[rows]
        leader = sums.argmax(1, keepdim=True)
        ahead = sums.gather(1, leader) - sums
        left = self.question.rule.span * remaining if remaining else 0.0
        # A tie at the end goes to the lower class, so against higher ones a tie is enough.
        higher = torch.arange(sums.shape[1]) > leader
        safe = (ahead > left) | (higher & (ahead >= left))
        return safe.scatter(1, leader, True).all(1)


class PPR(Stopping):
    """Stop when the leader's votes against the runner-up's could hardly come from a tie.

    With a and b votes of the two, stop when the evidence 2^(a+b) a! b! / (a+b+1)! times
    2 P(Bin(a+b+1, 1/2) <= a) reaches (K - 1) / delta: the likelihood ratio of a share spread
    evenly over [1/2, 1] against 1/2, a test martingale, so by Ville's inequality the answer
    differs from the class that most passes choose with probability at most delta, at any
    schedule of looks.

    Source: Jain et al., *PAC Mode Estimation using PPR Martingale Confidence Sequences*, AISTATS
    2022; the factor for one side is ours.
    """

    def __init__(self, question: Question, images: int) -> None:
        if question.rule.votes is not RULES["prediction"].votes:
            raise InputError("stop='ppr' counts whole votes: use rule='prediction' or 'betting'")
        super().__init__(question, images)
        self.needed = torch.tensor(
            needed_votes(question.samples, question.classes, question.delta), dtype=torch.float64
        )

    def looks(self) -> list[int]:
        whole = self.question.samples
        looks, factor = list(_LOOKS), 4 / 3
        while looks[-1] < whole:
            looks.append(round(looks[-1] * factor))
        # Too few passes may not decide even a unanimous vote.
        first = int(self.needed[0].clamp(max=whole))
        return sorted({look for look in looks if first < look < whole} | {first, whole})

    def decided(self, rows: Tensor, passes: int) -> Tensor:
        del passes
        first, second = self.sums[rows].topk(2, dim=1).values.round().unbind(1)
        return first >= self.needed[second.long()]


class Betting(Stopping):
    """Stop when bets on the leader against every other class have made (K - 1) / delta.

    D = (vote_i - vote_j) / span in [-1, 1]; the capital is the mean over fixed fractions
    lambda of prod (1 + lambda D / 2), a test martingale while class i is not ahead. For votes
    that are not whole, such as soft ones.

    Source: Waudby-Smith, Ramdas, *Estimating Means of Bounded Random Variables by Betting*,
    2024, arXiv 2010.09686.
    """

    def __init__(self, question: Question, images: int) -> None:
        super().__init__(question, images)
        if not 0 < question.rule.span < float("inf"):
            raise InputError("stop='betting' needs votes with a bound, which this rule has not")
        k = question.classes
        self.bets = torch.tensor(_BETS, dtype=torch.float64).view(-1, 1, 1, 1)
        self.capital = torch.zeros(len(_BETS), images, k, k, dtype=torch.float64)  # logarithms

    def looks(self) -> list[int]:
        whole = self.question.samples
        return sorted({*range(8, min(64, whole), 4), *range(64, whole, 16), whole})

    def add(self, rows: Tensor, votes: Tensor) -> None:
        super().add(rows, votes)
        capital = self.capital[:, rows]
        for vote in votes.double().cpu() / self.question.rule.span:
            lead = vote[:, :, None] - vote[:, None, :]
            capital += torch.log1p(self.bets * lead / 2)
        self.capital[:, rows] = capital

    def decided(self, rows: Tensor, passes: int) -> Tensor:
        del passes
        capital = self.capital[:, rows].logsumexp(0) - torch.tensor(float(len(_BETS))).log()
        leader = self.sums[rows].argmax(1)
        against = capital[torch.arange(len(rows)), leader]  # (n, K): the leader's against each
        against = against.scatter(1, leader[:, None], torch.inf)
        need = torch.tensor((self.question.classes - 1) / self.question.delta).log()
        return against.amin(1) >= need


STOPS: dict[str, Callable[[Question, int], Stopping]] = {
    "fixed": Stopping,
    "exact": Exact,
    "ppr": PPR,
    "betting": Betting,
}


def stopping(name: str, question: Question, images: int) -> Stopping:
    """Return the stopping rule ``name`` for ``images`` images.

    Raises:
        InputError: the name is unknown, delta is not a probability, or the voting rule does not
            suit it.
    """
    if not 0 < question.delta < 1:
        raise InputError(f"delta must lie in (0, 1), not {question.delta}")
    return choose("stop", STOPS, name)(question, images)


@functools.lru_cache(maxsize=64)
def needed_votes(
    most: int, classes: int, delta: float, one_sided: bool = True
) -> tuple[float, ...]:
    """Return the leader's votes that decide, for 0..most votes of the runner-up.

    Infinity where more than ``most`` passes would be needed. ``one_sided=False`` leaves out the
    factor for one side, as published.

    >>> needed_votes(64, 10, 1e-3, one_sided=False)[:3]
    (18.0, 22.0, 25.0)
    """
    need = torch.tensor((classes - 1) / delta, dtype=torch.float64).log().item()
    table, leader = [], 1
    for runner_up in range(most + 1):
        leader = max(leader, runner_up + 1)
        while leader <= most and ppr_evidence(leader, runner_up, one_sided) < need:
            leader += 1
        table.append(float(leader) if leader + runner_up <= most else torch.inf)
    return tuple(table)


def ppr_evidence(leader: int, runner_up: int, one_sided: bool = True) -> float:
    """log of 2^(a+b) a! b! / (a+b+1)!, times 2 P(Bin(a+b+1, 1/2) <= a) if one-sided.

    >>> round(ppr_evidence(0, 0), 6)  # no vote is no evidence
    0.0
    """
    a, b = leader, runner_up
    two = torch.tensor(2.0, dtype=torch.float64).log().item()
    value = (a + b) * two + gammaln(a + 1) + gammaln(b + 1) - gammaln(a + b + 2)
    if one_sided:
        value += two + binom.logcdf(a, a + b + 1, 0.5)
    return float(value)
