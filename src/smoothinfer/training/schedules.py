"""Learning rates as pure functions of progress, so that a resumed run needs no state for them."""

import math
from collections.abc import Callable, Sequence

from smoothinfer.errors import InputError

Schedule = Callable[..., float]


def steps(
    progress: float, milestones: Sequence[float] = (0.25, 0.5, 0.75), factor: float = 0.1
) -> float:
    """``factor`` for every milestone passed, multiplied; milestones are fractions of the run.

    The paper's: 0.1 at a quarter, a half and three quarters of 400 epochs.

    >>> steps(0.3)
    0.1
    """
    return factor ** sum(progress >= milestone for milestone in milestones)


def one_cycle(progress: float, warmup: float = 0.2, start: float = 0.04, end: float = 0.0) -> float:
    """Linear from ``start`` to 1 in the first ``warmup`` of the run, then a cosine to ``end``.

    Source: Smith, Topin, *Super-Convergence*, 2018, arXiv 1708.07120.

    >>> one_cycle(0.2)
    1.0
    """
    if not 0 < warmup < 1:
        raise InputError(f"warmup must lie in (0, 1), not {warmup}")
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def constant(progress: float) -> float:
    """1 throughout.

    >>> constant(0.5)
    1.0
    """
    del progress
    return 1.0


SCHEDULES: dict[str, Schedule] = {"steps": steps, "one_cycle": one_cycle, "constant": constant}
