"""Whether what a check measured is beyond chance, and how many images it takes to tell."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_CERTAIN = 1e-3  # probability of a false alarm of one check, all its tests together
_FEWEST = 10  # images of a mean: 0.5^10 < 0.001


class Outcome(NamedTuple):
    """What one test of a check found.

    Attributes:
        points: per cent of the images that count.
        fired: they are enough to matter, and beyond chance.
        unclear: they are enough to matter, and may be chance: there are too few images.
        needs: the images that it takes to fire at all, where there are fewer; else 0.
        have: the images that there are.
    """

    points: float
    fired: bool
    unclear: bool
    needs: int = 0
    have: int = 0


def worse(
    before: Tensor,
    after: Tensor,
    points: float = 1.0,
    tests: int = 1,
    candidates: Tensor | None = None,
) -> Outcome:
    """Say whether ``after`` (N,) is right on fewer images than ``before``, beyond chance.

    By at least ``points`` per cent of the images, and with a one-sided McNemar p-value below
    0.001 for all ``tests`` of the check together: of the images on which the two differ, too many
    went one way. Ten must, and none the other way.

    Args:
        before, after: (N,).
        points: per cent.
        tests: number of tests of the check.
        candidates: (N,) the images that could be lost; by default those right ``before``.

    >>> before, after = torch.ones(1000).bool(), torch.arange(1000) >= 10
    >>> worse(before, after)[:3]
    (1.0, True, False)
    >>> worse(before[:100], after[1:101])[:3]
    (9.0, False, True)
    >>> worse(before[:3], after[:3])[3:]
    (10, 3)
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    drop = 100 * (lost - won) / max(1, len(before))
    sure = chance_of(lost, lost + won, 0.5) < _CERTAIN / tests if lost + won else False
    able = before if candidates is None else candidates
    needs = _needed(least_images(0.5, tests), able, points)
    return Outcome(drop, drop >= points and sure, drop >= points and not sure, *needs)


def more_than(
    found: Tensor, share: float, candidates: Tensor | None = None, tests: int = 1
) -> Outcome:
    """Say whether more than ``share`` of the images are ``found`` (N,), beyond chance.

    With a one-sided binomial p-value below 0.001 for all ``tests`` of the check together.

    Args:
        found: (N,).
        share: a number below 1.
        candidates: (N,) the images that could be found; all by default.
        tests: number of tests of the check.

    >>> more_than(torch.arange(64) < 4, 0.05).fired, more_than(torch.arange(1000) < 80, 0.05).fired
    (False, True)
    >>> more_than(torch.ones(2).bool(), 0.05)[1:]  # of three images all three are beyond chance
    (False, True, 3, 2)
    """
    count, images = int(found.sum()), len(found)
    points = 100 * count / max(1, images)
    sure = images > 0 and chance_of(count, images, share) < _CERTAIN / tests
    candidates = torch.ones_like(found) if candidates is None else candidates
    needs = _needed(_least_found(images, share, tests), candidates, 100 * share)
    return Outcome(points, sure, points > 100 * share and not sure, *needs)


def positive_mean(values: Tensor, points: float, tests: int = 1) -> Outcome:
    """Say whether the mean of ``values`` (N,) is above 0 over more than these images.

    By a one-sided t-test with p < 0.001 for all ``tests`` of the check together, on ten images or
    more: of fewer a single one may be the mean.

    Args:
        values: one number for each image.
        points: what the outcome's ``points`` shall be.
        tests: number of tests of the check.
    """
    from scipy.stats import ttest_1samp

    if len(values) < _FEWEST:
        return Outcome(points, False, False, _FEWEST, len(values))
    above = float(values.double().mean()) > 0
    if float(values.double().std()) < 1e-12:  # as good as equal: chance has no part in it
        return Outcome(points, above, False)
    chance = ttest_1samp(values.double().cpu().numpy(), 0.0, alternative="greater").pvalue
    sure = chance < _CERTAIN / tests
    return Outcome(points, above and sure, above and not sure)


def chance_of(successes: int, trials: int, share: float) -> float:
    """Return the probability of at least so many successes."""
    from scipy.stats import binom

    return float(binom.sf(successes - 1, trials, share))


def least_images(share: float, tests: int = 1) -> int:
    """Return the fewest images that, if all are found, show more than ``share`` beyond chance.

    >>> [least_images(share) for share in (0.5, 0.05, 0.01, 0.005)]
    [10, 3, 2, 2]
    """
    return math.floor(math.log(_CERTAIN / tests) / math.log(share)) + 1


def _least_found(images: int, share: float, tests: int) -> int:
    """Return how many of ``images`` must be found; where all are too few, how many images."""
    least = least_images(share, tests)
    if images < least:
        return least
    counts = range(least, images + 1)
    return next(k for k in counts if chance_of(k, images, share) < _CERTAIN / tests)


def _needed(least: int, candidates: Tensor, points: float) -> tuple[int, int]:
    """Return the images needed and those there are, or zeros.

    Where fewer than ``points`` per cent of many images are candidates, no more are needed: what
    could be found there would not matter.
    """
    have, images = int(candidates.sum()), len(candidates)
    if have >= least or (images >= least and 100 * have < points * images):
        return 0, 0
    return least, have
