"""When a vote is decided: fixed, exact curtailment, PPR, and betting for fractional votes.

The votes of one image over passes are independent and identically distributed, whatever happens
to other images. The sequential tests need nothing else.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.engine.voting import RULES, Rule
from smoothinfer.errors import InputError, choose

_CHECKPOINTS = (17, 24, 32, 48, 64, 96, 128, 192, 256, 384)
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

    def sums(self, rule: Rule) -> Tensor: ...


class Stopping:
    """Decides at checkpoints which images need no more passes; the base class never stops early.

    Attributes:
        exactly: whether the answer must be that of all passes.
    """

    exactly = False

    def checkpoints(self) -> list[int]:
        """Return the numbers of passes at which `decided` is asked, in ascending order."""
        raise NotImplementedError

    def observe(self, rows: Tensor, block: Tensor) -> None:
        """See the logits (S, n, K) of passes of the images ``rows`` (n,)."""

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        """Say for each of ``rows`` whether it needs no more passes, (n,)."""
        raise NotImplementedError


class Fixed(Stopping):
    """All ``samples`` passes for every image."""

    def __init__(self, samples: int) -> None:
        if samples < 1:
            raise InputError(f"samples must be at least 1, not {samples}")
        self.samples = samples

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
        remaining = self.spec.samples - tally.passes
        sums = tally.sums(self.spec.rule)[rows]
        leader = sums.argmax(1, keepdim=True)
        ahead = sums.gather(1, leader) - sums
        left = self.spec.rule.span * remaining if remaining else 0.0
        # A tie at the end goes to the lower class, so against higher ones a tie is enough.
        higher = torch.arange(sums.shape[1], device=sums.device) > leader
        safe = (ahead > left) | (higher & (ahead >= left))
        return safe.scatter(1, leader, True).all(1)


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
        self.needed = torch.tensor(
            needed_votes(spec.samples, spec.classes, spec.delta), dtype=torch.float64
        )

    def checkpoints(self) -> list[int]:
        most = self.spec.samples
        points, factor = list(_CHECKPOINTS), 4 / 3
        while points[-1] < most:
            points.append(round(points[-1] * factor))
        # Fewer passes decide nothing, not even a unanimous vote.
        first = int(self.needed[0].clamp(max=most))
        return sorted({at for at in points if first < at < most} | {first, most})

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        first, second = tally.counts[rows].topk(2, dim=1).values.unbind(1)
        return first >= self.needed.to(first.device)[second]


class Betting(Stopping):
    """Stop when bets on the leader against every other class have multiplied by (K - 1) / delta.

    D = (vote_i - vote_j) / span in [-1, 1]; the capital is the mean over fixed fractions
    lambda of prod (1 + lambda D / 2), a test martingale while class i is not ahead. For
    fractional votes, such as soft ones.

    Source: Waudby-Smith, Ramdas, *Estimating Means of Bounded Random Variables by Betting*,
    2024, arXiv 2010.09686.
    """

    def __init__(self, spec: VoteSpec, images: int) -> None:
        if not 0 < spec.rule.span < float("inf"):
            raise InputError(
                "stop='betting' needs bounded votes; use rule 'prediction', 'weighted' or 'soft'"
            )
        self.spec = spec
        self.bets = torch.tensor(_BETS, dtype=torch.float64).view(-1, 1, 1, 1)
        # Logarithms of the capital of each fraction, for class i against class j.
        shape = (len(_BETS), images, spec.classes, spec.classes)
        self.capital = torch.zeros(shape, dtype=torch.float64)

    def checkpoints(self) -> list[int]:
        most = self.spec.samples
        return sorted({*range(8, min(64, most), 4), *range(64, most, 16), most})

    def observe(self, rows: Tensor, block: Tensor) -> None:
        rows, rule = rows.cpu(), self.spec.rule
        capital = self.capital[:, rows]
        for logits in block:
            vote = rule.votes(logits.float()).double().cpu() / rule.span
            lead = vote[:, :, None] - vote[:, None, :]
            capital += torch.log1p(self.bets * lead / 2)
        self.capital[:, rows] = capital

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        leader = tally.sums(self.spec.rule)[rows].argmax(1).cpu()
        capital = self.capital[:, rows.cpu()].logsumexp(0)
        capital = capital - torch.tensor(float(len(_BETS))).log()
        against = capital[torch.arange(len(rows)), leader]  # (n, K): the leader against each class
        against = against.scatter(1, leader[:, None], torch.inf)
        need = torch.tensor((self.spec.classes - 1) / self.spec.delta).log()
        return (against.amin(1) >= need).to(rows.device)


STOPS: dict[str, Callable[[VoteSpec, int], Stopping]] = {
    "fixed": lambda spec, images: Fixed(spec.samples),
    "exact": Exact,
    "ppr": PPR,
    "betting": Betting,
}


def stopping(name: str, spec: VoteSpec, images: int) -> Stopping:
    """Return the stopping rule ``name`` for ``images`` images.

    Raises:
        InputError: the name is unknown, a number is out of range, or the voting rule does not
            suit it.
    """
    if not 0 < spec.delta < 1:
        raise InputError(f"delta must lie in (0, 1), not {spec.delta}")
    if spec.samples < 1:
        raise InputError(f"samples must be at least 1, not {spec.samples}")
    return choose("stop", STOPS, name)(spec, images)


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
    from scipy.special import gammaln
    from scipy.stats import binom

    a, b = leader, runner_up
    two = torch.tensor(2.0, dtype=torch.float64).log().item()
    value = (a + b) * two + gammaln(a + 1) + gammaln(b + 1) - gammaln(a + b + 2)
    if one_sided:
        value += two + binom.logcdf(a, a + b + 1, 0.5)
    return float(value)
