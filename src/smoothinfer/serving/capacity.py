"""How many requests a second a machine answers within the budget, by measurement."""

import math
import time
from dataclasses import dataclass

import torch

from smoothinfer.errors import InputError
from smoothinfer.runtime.modes import device_of
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images

_PASSES = 16  # that every answer should have, of votes with that many
_SPARE = 1.2  # of the budget that is proposed to the one that was measured
_LARGEST = 256
_REPEATS, _ATTEMPTS = 3, 5
_BUSY = 0.8  # share of the time that votes may take: at more, every delay makes requests wait


@dataclass(frozen=True)
class Capacity:
    """A measured capacity, by votes as the server casts them.

    Attributes:
        most: images of a batch, each of which gets ``passes`` in half of the budget.
        rate: requests a second: batches of ``most``, one after the other, in 80 % of the time.
        milliseconds: of ``passes`` passes of one image.
        passes: that each answer should have: 16, or all where a vote has fewer.
    """

    most: int
    rate: float
    milliseconds: float
    passes: int

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f} requests a second in batches of up to {self.most}; {self.passes} "
            f"passes of one image take {self.milliseconds:.1f} ms"
        )


def measure_capacity(
    smooth: SmoothedClassifier, shape: tuple[int, int, int], budget_ms: float
) -> Capacity:
    """Vote on batches of growing size, each within half of the budget, until 16 passes do not fit.

    Where a vote has fewer than 16 passes, all of them should fit.

    Args:
        smooth: votes.
        shape: (C, H, W) of an image.
        budget_ms: from the arrival of a request to its answer.

    Raises:
        InputError: not even one image gets its passes in time.
    """
    half, device = budget_ms / 2, device_of(smooth.model)
    images = torch.rand(_LARGEST, *shape, device=device)
    passes = min(_PASSES, smooth.samples)
    single, most = _milliseconds(smooth, images[:1], passes), 1
    # A machine that is busy at the start is asked again.
    if not any(_fits(smooth, images[:1], half) for _ in range(_ATTEMPTS)):
        raise InputError(_too_slow(passes, single, budget_ms))
    while most < _LARGEST and _fits(smooth, images[: 2 * most], half):
        most *= 2
    return Capacity(most, _BUSY * 1000 * most / half, single, passes)


def _too_slow(passes: int, single: float, budget_ms: float) -> str:
    """Say why one image is not answered in time, and what would do."""
    half = budget_ms / 2
    times = f"they take {single:.1f} ms here"
    if single <= half:
        times = f"they take {single:.1f} ms at best, and other work on this machine holds them up"
    enough = math.ceil(2 * _SPARE * max(single, half))
    return (
        f"a vote on one image does not get {passes} passes within {half:g} ms, half of the budget "
        f"(the other half is for requests that wait until the batch before them is done); {times}: "
        f"give --budget {enough}, a smaller --samples, --pool 256 where the weights are noisy, or "
        "noise at the inputs alone"
    )


def _milliseconds(smooth: SmoothedClassifier, images: Images, passes: int) -> float:
    """Return the least time of that many passes; the first vote makes the plan."""
    spent = []
    for _ in range(1 + _REPEATS):
        begun = time.perf_counter()
        smooth.predict(images, passes)
        spent.append(1000 * (time.perf_counter() - begun))
    return min(spent)


def _fits(smooth: SmoothedClassifier, images: Images, milliseconds: float) -> bool:
    """Say whether votes on ``images`` get their passes in time, mostly."""
    wanted = min(_PASSES, smooth.samples)
    passes = []
    for _ in range(_REPEATS):
        found = smooth.predict(images, budget_ms=milliseconds)
        passes.append(int(found.samples.min()))
    return sorted(passes)[_REPEATS // 2] >= wanted
