"""Sums of votes, from which verdicts are taken before anything is rounded to a score.

The verdict is the class with the largest sum; the lowest class wins a tie. Rules that count ranks
are summed in whole numbers, so no verdict of theirs depends on rounding. Other rules are summed in
float64, pass by pass.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.types import Labels

_BITS = 32  # of a digit: a billion of them fit into an int64, so passes need no carries
_MASK = (1 << _BITS) - 1


class Sums(Protocol):
    """The summed votes of one rule on N images."""

    def totals(self) -> Tensor:
        """Return the sums (N, K), rounded to float64."""

    def leaders(self, rows: Tensor) -> Labels:
        """Return the class with the largest sum for each of ``rows`` (n,)."""

    def margins(self, rows: Tensor, leaders: Labels, remaining: int) -> Tensor:
        """Return what is left of the lead over each class after the worst ``remaining`` passes.

        Only the sign counts, (n, K): positive where the leader stays ahead of the class, 0 where
        the two may tie, negative where the class may overtake.
        """


class WholeSums:
    """Exact sums of rank weights, as numbers of L digits of 32 bits.

    Args:
        digits: (L, N, K) int64, the most significant first; a digit may be larger than 32 bits
            until the carries are needed. Shared, not copied.
        weights: of each rank, as whole numbers in the right ratio.
        unit: the whole number that stands for 1.

    >>> sums = WholeSums(torch.zeros(1, 1, 3, dtype=torch.int64), [10, 3], unit=10)
    >>> sums.add(torch.tensor([0]), torch.tensor([[[2, 0, 1]], [[2, 1, 0]]]))
    >>> sums.totals().tolist()
    [[0.3, 0.3, 2.0]]
    """

    def __init__(self, digits: Tensor, weights: Sequence[int], unit: int) -> None:
        self.digits, self.unit, self.largest = digits, unit, max(weights)
        entries = [
            (rank, place, digit)
            for rank, weight in enumerate(weights)
            for place, digit in enumerate(_digits(weight, len(digits)))
            if digit
        ]
        table = torch.tensor(entries, dtype=torch.int64, device=digits.device).view(-1, 3)
        self._ranks, self._places, self._values = table.unbind(1)

    @classmethod
    def zeros(
        cls, weights: Sequence[int], unit: int, images: int, classes: int, device: torch.device
    ) -> "WholeSums":
        """Return empty sums, of as many digits as the weights need."""
        length = max(1, math.ceil(max(weights).bit_length() / _BITS))
        shape = (length, images, classes)
        return cls(torch.zeros(shape, dtype=torch.int64, device=device), weights, unit)

    def add(self, rows: Tensor, order: Tensor) -> None:
        """Count passes of the images ``rows`` (n,): ``order`` (S, n, K) has the class of a rank."""
        _, images, classes = self.digits.shape
        place = self._places * (images * classes)
        at = order[..., self._ranks] + rows[:, None] * classes + place
        values = self._values.expand_as(at)
        self.digits.view(-1).index_add_(0, at.flatten(), values.flatten())

    def totals(self) -> Tensor:
        first, *others = _carried(self.digits.clone()).double().unbind(0)
        total = torch.zeros_like(first)
        for digit in reversed(others):
            total = (total + digit) / 2**_BITS
        scale = Fraction(self.unit, 1 << (_BITS * len(others)))
        return (first + total) / float(scale)

    def leaders(self, rows: Tensor) -> Labels:
        digits = _carried(self.digits[:, rows])
        if len(digits) == 1:
            return digits[0].argmax(1)
        best = torch.ones_like(digits[0], dtype=torch.bool)
        for digit in digits:
            best &= digit == digit.masked_fill(~best, -1).amax(1, keepdim=True)
        return best.byte().argmax(1)

    def margins(self, rows: Tensor, leaders: Labels, remaining: int) -> Tensor:
        digits = self.digits[:, rows]
        ahead = digits.gather(2, leaders.view(1, -1, 1).expand(len(digits), -1, 1)) - digits
        left = _digits(self.largest * remaining, len(digits))
        if len(digits) == 1:
            return ahead[0] - left[0]
        ahead -= torch.tensor(left, device=digits.device).view(-1, 1, 1)
        ahead = _carried(ahead)  # from here on only the first digit may be negative
        return torch.where(ahead[0] < 0, -1, (ahead != 0).any(0).long())


class FloatSums:
    """Sums in float64, added pass by pass: they do not depend on how many passes ran together.

    Args:
        images, classes: N and K.
        span: the largest vote of one pass.
        device: of the votes.
    """

    def __init__(self, images: int, classes: int, span: float, device: torch.device) -> None:
        self._totals = torch.zeros(images, classes, dtype=torch.float64, device=device)
        self.span = float(span)

    def add(self, rows: Tensor, votes: Tensor) -> None:
        """Add the votes (S, n, K) of passes of the images ``rows`` (n,)."""
        total = self._totals[rows]
        for vote in votes.double():
            total += vote
        self._totals[rows] = total

    def totals(self) -> Tensor:
        return self._totals

    def leaders(self, rows: Tensor) -> Labels:
        return self._totals[rows].argmax(1)

    def margins(self, rows: Tensor, leaders: Labels, remaining: int) -> Tensor:
        sums = self._totals[rows]
        first = sums.gather(1, leaders[:, None])
        if not remaining:
            return first - sums
        left = self.span * remaining
        margin = (first - left) - sums
        # Each pass rounds a sum once more: a lead that so little could undo is none.
        slack = remaining * 2.0**-51 * (sums.abs().amax() + left)
        if not self.span.is_integer():
            return margin - slack
        # Then first - left has no rounding, and rounding keeps the order of equal steps: at worst
        # the class that is behind draws level.
        return margin.masked_fill((margin > 0) & (margin <= slack), 0.0)


def _digits(number: int, length: int) -> list[int]:
    """Return ``length`` digits of 32 bits, the most significant first; it takes all the rest.

    >>> _digits(2**40 + 7, 2)
    [256, 7]
    """
    lower = [(number >> (_BITS * place)) & _MASK for place in range(length - 1)]
    return [number >> (_BITS * (length - 1)), *reversed(lower)]


def _carried(digits: Tensor) -> Tensor:
    """Carry in place, from the last digit to the first: all others lie in 0..2^32 - 1 then."""
    for place in range(len(digits) - 1, 0, -1):
        digits[place - 1] += digits[place] >> _BITS
        digits[place] &= _MASK
    return digits
