"""How many requests a second a machine answers within the budget, by measurement."""

import time
from dataclasses import dataclass

import torch

from smoothinfer.errors import InputError
from smoothinfer.runtime.modes import device_of
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images

_PASSES = 16  # that every answer should have
_LARGEST = 256
_REPEATS, _ATTEMPTS = 3, 5
_BUSY = 0.8  # share of the time that votes may take: at more, every delay makes requests wait


@dataclass(frozen=True)
class Capacity:
    """A measured capacity, by votes as the server casts them.

    Attributes:
        most: images of a batch, each of which gets 16 passes in half of the budget.
        rate: requests a second: batches of ``most``, one after the other, in 80 % of the time.
        milliseconds: of 16 passes of one image.
    """

    most: int
    rate: float
    milliseconds: float

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f} requests a second in batches of up to {self.most}; 16 passes of one "
            f"image take {self.milliseconds:.1f} ms"
        )


def measure_capacity(
    smooth: SmoothedClassifier, shape: tuple[int, int, int], budget_ms: float
) -> Capacity:
    """Vote on batches of growing size, each within half of the budget, until 16 passes do not fit.

    Args:
        smooth: votes.
        shape: (C, H, W) of an image.
        budget_ms: from the arrival of a request to its answer.

    Raises:
        InputError: not even one image gets 16 passes in time.
    """
    half, device = budget_ms / 2, device_of(smooth.model)
    images = torch.rand(_LARGEST, *shape, device=device)
    single, most = _milliseconds(smooth, images[:1]), 1
    # A machine that is busy at the start is asked again.
    if not any(_fits(smooth, images[:1], half) for _ in range(_ATTEMPTS)):
        raise InputError(
            f"a vote on one image does not get {_PASSES} passes within {half:g} ms, half of the "
            f"budget (undisturbed they take {single:.1f} ms): give a longer --budget"
        )
    while most < _LARGEST and _fits(smooth, images[: 2 * most], half):
        most *= 2
    return Capacity(most, _BUSY * 1000 * most / half, single)


def _milliseconds(smooth: SmoothedClassifier, images: Images) -> float:
    """Return the least time of 16 passes; the first vote makes the plan."""
    spent = []
    for _ in range(1 + _REPEATS):
        begun = time.perf_counter()
        smooth.predict(images, _PASSES)
        spent.append(1000 * (time.perf_counter() - begun))
    return min(spent)


def _fits(smooth: SmoothedClassifier, images: Images, milliseconds: float) -> bool:
    """Say whether votes on ``images`` get 16 passes in time, mostly."""
    wanted = min(_PASSES, smooth.samples)
    passes = []
    for _ in range(_REPEATS):
        found = smooth.predict(images, budget_ms=milliseconds)
        passes.append(int(found.samples.min()))
    return sorted(passes)[_REPEATS // 2] >= wanted
