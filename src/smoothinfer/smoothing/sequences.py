"""Confidence sequences of a share of passes: bounds that hold at all times at once.

The chance that the bound is ever wrong is at most alpha, however often one looks and whenever one
stops. Two kinds: ``betting``, the likelihood ratio of a share that is spread evenly against each
possible share (Ville's inequality), and ``union``, Clopper-Pearson at alpha / (k (k + 1)) at the
k-th look.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Bound = Callable[[Numbers, int, int, float], Numbers]
_HALVINGS = 40  # to 1e-12


def log_evidence(hits: Numbers, samples: int, share: Numbers | float) -> Numbers:
    """Return log of the evidence that a share of passes is above ``share``.

    The likelihood ratio of a share spread evenly over [share, 1] against ``share`` itself: a test
    martingale where the claim is false, at any looks (Ville).

    Args:
        hits: (N,) passes for the class.
        samples: passes.
        share: p0, or one for each of ``hits``.

    >>> float(log_evidence(np.array([30.0]), 30, 0.5)[0]) > math.log(1e6)
    True
    """
    from scipy.special import betaincc, betaln

    a, b = np.asarray(hits, dtype=float), samples - np.asarray(hits, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = betaln(a + 1, b + 1) + np.log(betaincc(a + 1, b + 1, share))
        spread -= np.log1p(-np.asarray(share))
        against = a * np.log(share) + b * np.log1p(-np.asarray(share))
    return np.asarray(spread - against)


def _betting(hits: Numbers, samples: int, look: int, alpha: float) -> Numbers:
    """Return the largest share against which the evidence reaches 1 / alpha, 0 without one."""
    del look
    low, high = np.zeros(len(hits)), hits / samples
    needed = -math.log(alpha)
    for _ in range(_HALVINGS):  # the evidence falls as the share rises to hits / samples
        middle = (low + high) / 2
        rejected = log_evidence(hits, samples, np.maximum(middle, 1e-300)) >= needed
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def _union(hits: Numbers, samples: int, look: int, alpha: float) -> Numbers:
    """Return Clopper-Pearson's bound at the ``look``-th look, from 1."""
    return clopper_pearson(hits, samples, alpha / (look * (look + 1)))


def clopper_pearson(hits: Numbers, samples: int, alpha: float) -> Numbers:
    """Return lower bounds of shares, each wrong with probability alpha at most, at one look.

    >>> float(clopper_pearson(np.array([10.0]), 10, 0.05)[0].round(3))
    0.741
    """
    from scipy.special import betaincinv

    safe = np.maximum(hits, 1)
    return np.where(hits > 0, betaincinv(safe, samples - safe + 1, alpha), 0.0)


SEQUENCES: dict[str, Bound] = {"betting": _betting, "union": _union}


def lower_share(kind: str, hits: Numbers, samples: int, look: int, alpha: float) -> Numbers:
    """Return lower bounds of shares.

    Args:
        kind: in ``SEQUENCES``.
        hits: (N,) passes for the class.
        samples: passes so far.
        look: number of this look, from 1; looks must not depend on the votes.
        alpha: chance that the bound is ever wrong.

    >>> bool(0.9 < lower_share("betting", np.array([1000.0]), 1000, 1, 1e-3)[0] < 1)
    True
    """
    distinct, places = np.unique(np.asarray(hits, dtype=float), return_inverse=True)
    return SEQUENCES[kind](distinct, samples, look, alpha)[places]


def upper_share(kind: str, hits: Numbers, samples: int, look: int, alpha: float) -> Numbers:
    """Return upper bounds of shares, 1 minus the lower bound of the other passes; see there."""
    return 1 - lower_share(kind, samples - np.asarray(hits, dtype=float), samples, look, alpha)
