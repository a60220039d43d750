"""Exact tests of a share at looks known beforehand: each look spends a part of alpha.

A confidence sequence bounds every share at all times without end. Certificates ask less: whether a
share is above one of a few thresholds, at a few dozen looks. Then the chance that hits ever reach a
boundary can be computed, look by look, and the boundary set to use up alpha.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LAST = 0.2  # part of alpha for the last look, where images near a threshold end
_ROUNDING = 1e-12  # above what the arithmetic of a look may be off, in probability
_CUT = 1e-14  # tails of the hits of one block that are left out


def parts_of_alpha(looks: int) -> NDArray[np.float64]:
    """Return the parts of alpha that each look spends; they sum to 1.

    >>> parts_of_alpha(4).round(2).tolist()
    [0.2, 0.2, 0.2, 0.4]
    """
    parts = np.full(looks, (1 - _LAST) / looks)
    parts[-1] += _LAST
    return parts


def least_hits(share: float, looks: Sequence[int], alpha: float) -> NDArray[np.int64]:
    """Return the least hits at each look that reject "the share is at most ``share``".

    If it is, the chance that hits reach the boundary at any look is at most alpha. The hits of
    those that have not reached it yet are followed exactly, from look to look:
    P_k(h) = sum_i P_{k-1}(h - i) Binomial(i; n_k - n_{k-1}, share). The boundary is the least h
    with P_k(at least h) within the part of the look and what earlier ones did not use.

    Args:
        share: p0, the largest share for which the claim would be false.
        looks: n_1 < n_2 < ..., passes at which hits are counted.
        alpha: chance of a false claim.

    Returns:
        (looks,) hits; more than the passes where not even all of them suffice.

    Source: Lan, DeMets 1983, *Discrete Sequential Boundaries for Clinical Trials*, Biometrika 70;
    here with exact binomial probabilities.

    >>> least_hits(0.5, [10, 20], 0.05).tolist()
    [9, 15]
    """
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    alive, lowest, before, spare = np.ones(1), 0, 0, 0.0
    boundary = np.zeros(len(looks), dtype=np.int64)
    for at, (passes, part) in enumerate(zip(looks, parts_of_alpha(len(looks)), strict=True)):
        block = passes - before
        first, last = (int(each) for each in binom.ppf([_CUT, 1 - _CUT], block, share))
        hits = np.arange(max(first - 1, 0), min(last + 1, block) + 1)
        alive = fftconvolve(alive, binom.pmf(hits, block, share)).clip(0)
        lowest, before = lowest + int(hits[0]), passes
        reach = alive[::-1].cumsum()[::-1] + _ROUNDING
        room = spare + alpha * part
        kept = int((reach > room).sum())
        boundary[at] = lowest + kept
        spare = room - float(reach[kept] if kept < len(reach) else _ROUNDING)
        alive = alive[:kept]
        gone = int((alive.cumsum() < _CUT).sum())
        alive, lowest = alive[gone:], lowest + gone
    return boundary
