"""Three numbers for a random model: mean over passes, worst of ten passes, and the vote."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import norm

from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import Rows, accuracy
from smoothinfer.numerics.statistics import Interval, mean_of, mean_share

ASKED_AGAIN = 10  # passes of which an attacker needs one that errs


@dataclass(frozen=True)
class Standing:
    """How a random model stands under one attack, all over the same images.

    Attributes:
        mean: share of right passes: what one request gets.
        worst: share of images that ten passes in a row get right: what is left when an attacker
            may ask ten times.
        vote: share of images that the vote gets right.
        gain: vote minus mean, with the interval of the paired difference over images.
        luck: standard deviation of ``vote`` if its passes were drawn again, for every image by
            itself. Of such passes it is an upper bound: rows do not hold the votes of the
            runner-up, which is taken to have all other votes. Draws that images share, as those of
            the weights, can add to it.
        shared_luck: the same if all images shared all draws, which no draws exceed.
    """

    mean: Interval
    worst: Interval
    vote: Interval
    gain: Interval
    luck: float
    shared_luck: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def standing_of(rows: Rows) -> Standing:
    """Return the standing by the rows of one setting, one row for each image.

    With h of an image's n passes right, ten passes without replacement are all right with
    probability C(h, 10) / C(n, 10), whose mean over images is unbiased for fresh passes.

    Raises:
        InputError: there are no rows, or images had fewer than ten passes.

    >>> import pyarrow as pa
    >>> passes = {"hits": [20, 10], "used": [20, 20], "share": [1.0, 0.5], "correct": [True, True]}
    >>> found = standing_of(pa.table(passes))
    >>> found.mean.value, found.vote.value, round(found.worst.value, 3)
    (0.75, 1.0, 0.5)
    """
    if len(rows) == 0:
        raise InputError("there are no rows to judge by")
    hits, used, share = (np.array(rows[name], dtype=float) for name in ("hits", "used", "share"))
    correct = np.array(rows["correct"], dtype=bool)
    if used.min() < ASKED_AGAIN:
        raise InputError(f"the worst of {ASKED_AGAIN} passes needs as many: give more samples")
    right = hits / used
    spread = _spread_of_votes(right, share, used, correct)
    return Standing(
        mean=_share(right),
        worst=_share(all_right(hits, used)),
        vote=accuracy(rows),
        gain=_mean(correct - right),
        luck=math.sqrt(float((spread**2).sum())) / len(right),
        shared_luck=float(spread.mean()),
    )


def all_right(hits: Any, used: Any, count: int = ASKED_AGAIN) -> Any:
    """Return C(hits, count) / C(used, count) of each image.

    >>> all_right(np.array([10.0, 9.0]), np.array([10.0, 10.0])).round(6).tolist()
    [1.0, 0.0]
    """
    possible = hits >= count
    safe = np.where(possible, hits, count)
    log = gammaln(safe + 1) - gammaln(safe - count + 1)
    log -= gammaln(used + 1) - gammaln(used - count + 1)
    return np.where(possible, np.exp(log), 0.0)


def _mean(values: Any) -> Interval:
    return mean_of(float(values.mean()), float(values.std()), len(values))


def _share(values: Any) -> Interval:
    return mean_share(float(values.mean()), float(values.std()), len(values))


def _spread_of_votes(right: Any, share: Any, used: Any, correct: Any) -> Any:
    """Return sqrt(q (1 - q)) of each image, q the probability that another vote would differ."""
    # Of a right image the leader's share is known, of a wrong one also the label's.
    behind = np.where(correct, 1 - share, right)
    lead = np.clip(share - behind, 0, None)
    error = np.sqrt(np.clip(share + behind - lead**2, 1e-12, None) / used)
    turns = norm.sf(lead / error)
    return np.sqrt(turns * (1 - turns))
