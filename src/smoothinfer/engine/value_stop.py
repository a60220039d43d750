"""Stop by what is at stake: when another block of passes is worth less than it costs."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothinfer.engine.stopping import Stopping, Votes, VoteSpec, growing
from smoothinfer.errors import plain_float

PRICE = 3e-4  # accuracy that a pass must be worth: see docs/results/speed.md
_LOOKS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
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
        return sorted(early | {*growing(_LOOKS[-1], self.samples, 4 / 3)})

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        first, second = tally.counts[rows].topk(2, dim=1).values.cpu().numpy().T
        left = self.samples - tally.passes
        pairs, places = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
        ended = [_is_over(int(a), int(b), left, self.price) for a, b in pairs.T]
        return torch.tensor(ended)[torch.from_numpy(places.flatten())].to(rows.device)


@functools.lru_cache(maxsize=2**16)
def _is_over(leader: int, runner_up: int, left: int, price: float) -> bool:
    blocks = [size for size in _BLOCKS if size <= left] or ([left] if left else _BLOCKS)
    return all(expected_gain(leader, runner_up, size) <= price * size for size in blocks)


def expected_gain(leader: int, runner_up: int, block: int) -> float:
    """Return G_m, the accuracy that ``block`` more passes are expected to gain.

    >>> expected_gain(4, 4, 16) > expected_gain(6, 2, 16) > expected_gain(8, 0, 16) > 0
    True
    """
    from scipy.special import betaln, gammaln

    a, b, m = leader + 1, runner_up + 1, block
    votes: NDArray[np.float64] = np.arange(m + 1, dtype=float)
    chosen = gammaln(m + 1) - gammaln(votes + 1) - gammaln(m - votes + 1)
    chance = np.exp(chosen + betaln(a + votes, b + m - votes) - betaln(a, b))
    lead = 2 * (a + votes) / (a + b + m) - 1
    return float(chance @ np.maximum(-lead, 0))
