"""How many requests a second a machine answers within the budget, by measurement."""

import time
from dataclasses import dataclass

import torch

from smoothinfer.errors import InputError
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images

_PASSES = 16  # that every answer should have
_LARGEST = 256
_REPEATS = 3


@dataclass(frozen=True)
class Capacity:
    """A measured capacity.

    Attributes:
        most: images of a batch, so that each gets 16 passes in half of the budget.
        rate: requests a second: batches of ``most``, one after the other.
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
    """Time batches of growing size until 16 passes no longer fit into half of the budget.

    Args:
        smooth: votes.
        shape: (C, H, W) of an image.
        budget_ms: from the arrival of a request to its answer.

    Raises:
        InputError: not even one image gets 16 passes in time.
    """
    half, most = budget_ms / 2, 1
    single = spent = _milliseconds(smooth, torch.rand(1, *shape))
    if single > half:
        raise InputError(
            f"16 passes of one image take {single:.1f} ms, over half of the budget of "
            f"{budget_ms:g} ms: give a longer --budget"
        )
    while most < _LARGEST:
        longer = _milliseconds(smooth, torch.rand(2 * most, *shape))
        if longer > half:
            break
        most, spent = 2 * most, longer
    return Capacity(most, 1000 * most / max(half, spent), single)


def _milliseconds(smooth: SmoothedClassifier, images: Images) -> float:
    """Return the median time of a vote of 16 passes on ``images``."""
    smooth.predict(images, _PASSES)
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        smooth.predict(images, _PASSES)
        times.append(1000 * (time.perf_counter() - begun))
    return sorted(times)[_REPEATS // 2]
