"""Intervals for measured accuracies."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from smoothinfer.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A share of images with its confidence interval; all three numbers are in [0, 1]."""

    value: float
    low: float
    high: float
    images: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        """Per cent, with the ends of the interval.

        >>> str(proportion(50, 100))
        '50.0 (40.4-59.6)'
        """
        # z: a bound that rounding has put below 0 is 0.0, not -0.0
        return f"{100 * self.value:z.1f} ({100 * self.low:z.1f}-{100 * self.high:z.1f})"


def proportion(successes: int, images: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share.

    It covers chance in the choice of images. The verdicts of a smoothed classifier on several
    images share their noise, so repeat over seeds to cover chance in the noise.

    Args:
        successes: number of images that count, at most ``images``.
        images: sample size, at least 1.
        confidence: coverage, e.g. 0.95.

    Raises:
        InputError: there are no images, or more successes than images.

    Source: Wilson 1927; `scipy.stats.binomtest`.

    >>> proportion(9, 10).low < 0.9 < proportion(9, 10).high
    True
    """
    from scipy.stats import binomtest

    if images < 1 or not 0 <= successes <= images:
        raise InputError(f"cannot take a share of {successes} in {images} images")
    low, high = binomtest(successes, images).proportion_ci(confidence, method="wilson")
    return Interval(successes / images, float(low), float(high), images)


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the means of figures and of the ends of their intervals, such as over seeds.

    The same images were asked under each seed, so that more seeds make no interval shorter.

    Args:
        intervals: of the same images; at least one.

    >>> str(mean_interval([Interval(0.5, 0.4, 0.6, 100), Interval(0.7, 0.6, 0.8, 100)]))
    '60.0 (50.0-70.0)'
    """
    value, low, high = (
        fmean(getattr(each, name) for each in intervals) for name in ("value", "low", "high")
    )
    return Interval(value, low, high, intervals[0].images)


def mean_share(mean: float, deviation: float, images: int, confidence: float = 0.95) -> Interval:
    """Mean of one number in [0, 1] per image: Wilson's interval at an effective sample size.

    n_eff = n m (1 - m) / s^2: numbers that are all 0 or 1 have n_eff = n, others vary less. Unlike
    mean -+ z s / sqrt(n) it does not close at the ends. In this ratio the images are joined by one
    with a 0 and one with a 1, since a few images may all miss what is rare.

    Args:
        mean: m, over the images.
        deviation: s, their standard deviation, divided by the number of images.
        images: n, at least 1.
        confidence: coverage, e.g. 0.95.

    Raises:
        InputError: there are no images.

    >>> mean_share(0.5, 0.5, 100) == proportion(50, 100)
    True
    >>> round(mean_share(0.0, 0.0, 100).high, 3)
    0.037
    """
    from scipy.stats import norm

    if images < 1:
        raise InputError(f"cannot take a mean over {images} images")
    joined = (images * mean + 1) / (images + 2)
    spread = (images * (deviation**2 + mean**2) + 1) / (images + 2) - joined**2
    size = images * max(1.0, joined * (1 - joined) / spread)
    z = float(norm.ppf(0.5 + confidence / 2))
    middle = (mean + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(mean * (1 - mean) / size + (z / (2 * size)) ** 2)
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half), images)


def mean_of(mean: float, deviation: float, images: int, confidence: float = 0.95) -> Interval:
    """Mean of one number per image, -+ t deviation / sqrt(images - 1): Student's interval.

    Args:
        mean: over the images.
        deviation: their standard deviation, divided by the number of images.
        images: sample size, at least 1; one image alone gives the interval [-1, 1].
        confidence: coverage, e.g. 0.95.

    Raises:
        InputError: there are no images.

    >>> mean_of(0.1, 0.5, 101)
    Interval(value=0.1, low=0.000801, high=0.199199, images=101)
    """
    from scipy.stats import t

    if images < 1:
        raise InputError(f"cannot take a mean over {images} images")
    if images == 1:
        return Interval(mean, -1.0, 1.0, 1)
    quantile = float(t.ppf(0.5 + confidence / 2, images - 1))
    half = quantile * deviation / math.sqrt(images - 1)
    return Interval(mean, round(mean - half, 6), round(mean + half, 6), images)
