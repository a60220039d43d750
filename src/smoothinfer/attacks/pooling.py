"""How many draws become one differentiable answer: (M, N, K) logits -> (N, K) scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

Pool = Callable[[Tensor], Tensor]


def log_mean_probability(draws: Tensor, sharpness: float = 1.0) -> Tensor:
    """log((1/M) sum_i softmax(sharpness * logits_i)), without underflow, (N, K).

    Sharpness 1 is the soft vote, infinite sharpness the hard vote: in between lies a surrogate of
    the hard vote that has a gradient where images are undecided.

    >>> import torch
    >>> log_mean_probability(torch.zeros(3, 1, 2)).exp().tolist()
    [[0.5, 0.5]]
    """
    return (sharpness * draws.float()).log_softmax(2).logsumexp(0) - math.log(len(draws))


def log_mean_rank_weight(draws: Tensor, sharpness: float = 4.0) -> Tensor:
    """log((1/M) sum_i 2^-r_i) with the soft rank r_y = sum_{j != y} sigmoid(s (z_j - z_y)), (N, K).

    A surrogate of the vote that gives 2^-r to the class of rank r.

    >>> import torch
    >>> log_mean_rank_weight(torch.tensor([[[9.0, 0.0, -9.0]]])).exp().round(decimals=3).tolist()
    [[1.0, 0.5, 0.25]]
    """
    gaps = draws.float()[..., None, :] - draws.float()[..., :, None]  # z_j - z_y at [y, j]
    rank = (sharpness * gaps).sigmoid().sum(-1) - 0.5  # its own sigmoid(0) is 1/2
    return (-math.log(2) * rank).logsumexp(0) - math.log(len(draws))


POOLS: dict[str, Pool | None] = {
    "mean": None,
    "pooled": log_mean_probability,
    "vote": partial(log_mean_probability, sharpness=4.0),
    "rank": log_mean_rank_weight,
}
