"""Stop by what is at stake: when another block of passes is worth less than it costs."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from smoothinfer.engine.stopping import Stopping, Votes, VoteSpec, growing
from smoothinfer.errors import plain_float

PRICE = 2e-4  # accuracy that a pass must be worth: see docs/results/speed.md
# Looks cost little beside a pass. Before the fifth even votes that all agree say too little.
_LOOKS = (*range(5, 32), *range(32, 64, 2), *range(64, 128, 4), *range(128, 257, 8))
_BLOCKS = (4, 8, 16, 32, 64, 128)  # of passes that may come next


class Value(Stopping):
    """Go on while some block of passes is expected to gain more accuracy than it costs.

    With a votes for the leader and b for the runner-up, the share of the leader among the two is
    Beta(a + 1, b + 1). A class that gets a share s of the passes is taken to be right with
    probability s: then the answer after m more passes, k of them for the leader, gains

        G_m = sum_k P(k) max(0, 1 - 2 (a + 1 + k) / (a + b + 2 + m))

    over the leader of now, k beta-binomial. The vote ends when G_m <= price m for every m. A close
    vote between two classes that are both as likely to be right ends soon, unlike with ``ppr``, and
    so does a clear one.

    Args:
        spec: of the vote; whatever its rule, a and b count the passes that put a class first.
        images: number of images.
        price: accuracy that a pass must be worth: 0.0001 goes on for 100 passes where that is
            expected to make one answer of 100 right.

    Raises:
        InputError: the price is not between 0 and 1.
    """

    def __init__(self, spec: VoteSpec, images: int, price: float = PRICE) -> None:
        del images
        self.samples, self.price = spec.samples, plain_float("price", price, above=0, below=1)

    def checkpoints(self) -> list[int]:
        early = {at for at in _LOOKS if at < self.samples}
        return sorted(early | {*growing(_LOOKS[-1], self.samples, 1.05)})

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        first, second = tally.counts[rows].topk(2, dim=1).values.cpu().numpy().T
        pairs, places = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
        over = torch.from_numpy(self._are_over(pairs[0], pairs[1], self.samples - tally.passes))
        return over[torch.from_numpy(places.flatten())].to(rows.device)

    def _are_over(
        self, leader: NDArray[np.int64], runner_up: NDArray[np.int64], left: int
    ) -> NDArray[np.bool_]:
        over = np.ones(len(leader), dtype=bool)
        for size in [size for size in _BLOCKS if size <= left] or ([left] if left else _BLOCKS):
            over[over] = expected_gain(leader[over], runner_up[over], size) <= self.price * size
        return over


def expected_gain(leader: ArrayLike, runner_up: ArrayLike, block: int) -> NDArray[np.float64]:
    """Return G_m, the accuracy that ``block`` more passes are expected to gain.

    >>> more, less, least = expected_gain([4, 6, 8], [4, 2, 0], 16)
    >>> bool(more > less > least > 0)
    True
    """
    a, b = np.asarray(leader)[..., None] + 1, np.asarray(runner_up)[..., None] + 1
    votes = np.arange(block + 1)
    known = _log_factorials(int((a + b).max(initial=0)) + block)
    chosen = known[block] - known[votes] - known[block - votes]
    # log B(a + k, b + m - k) - log B(a, b), B(x, y) = (x - 1)! (y - 1)! / (x + y - 1)!
    after = known[a + votes - 1] + known[b + block - votes - 1] - known[a + b + block - 1]
    before = known[a - 1] + known[b - 1] - known[a + b - 1]
    lead = 2 * (a + votes) / (a + b + block) - 1
    gain: NDArray[np.float64] = (np.exp(chosen + after - before) * np.maximum(-lead, 0)).sum(-1)
    return gain


@functools.lru_cache(maxsize=8)
def _log_factorials_up_to(power: int) -> NDArray[np.float64]:
    logs = np.log(np.arange(1, 1 << power, dtype=float))
    return np.concatenate([[0.0], np.cumsum(logs)])


def _log_factorials(most: int) -> NDArray[np.float64]:
    """Return log n! for n from 0 to ``most`` and further."""
    return _log_factorials_up_to(int(most).bit_length())
