"""Intervals for measured accuracies."""

import math

import pytest
import torch

import smoothinfer as si
from smoothinfer.numerics.statistics import proportion


def test_wilson_interval_covers():
    generator = torch.Generator().manual_seed(0)
    counts = torch.binomial(
        torch.full((2000,), 50.0), torch.full((2000,), 0.3), generator=generator
    )
    found = [proportion(int(count), 50) for count in counts]
    covered = sum(each.low <= 0.3 <= each.high for each in found) / 2000
    assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)
    narrow = sum(abs(each.value - 0.3) < 0.02 for each in found) / 2000
    assert narrow < 0.9  # an interval far too narrow would be found out


@pytest.mark.parametrize(("successes", "images"), [(3, 2), (-1, 5), (0, 0)])
def test_impossible_shares_are_refused(successes, images):
    with pytest.raises(si.InputError, match="cannot take a share"):
        proportion(successes, images)
