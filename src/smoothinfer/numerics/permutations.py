"""An exact test of whether two sets of draws come from one distribution."""

import torch
from torch import Tensor

from smoothinfer.numerics.randomness import stream

_ROUNDS = 19_999


def permutation_test(one: Tensor, two: Tensor) -> tuple[float, float]:
    """Return p-values of the hypothesis that both sets of draws have one distribution.

    The first compares their means, the second their spreads. Under the hypothesis any division of
    the draws is as likely as the actual one, whatever the numbers of a draw have to do with each
    other, so a p-value below ``a`` has at most the probability ``a``.

    Args:
        one, two: (S, ...) draws, S at least 2.

    >>> draws = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    >>> mean, spread = permutation_test(draws[:8], draws[8:] + 5)
    >>> mean < 1e-3, spread > 1e-2
    (True, True)
    """
    products = _products(torch.cat([one, two]).flatten(1))
    shuffled = torch.rand(_ROUNDS, len(products), generator=stream(0, "permutations"))
    order = torch.cat([torch.arange(len(products))[None], shuffled.argsort(1)])
    first = (order < len(one)).double()
    second, own = 1 - first, products.diagonal()
    apart = first / len(one) - second / len(two)
    spreads = [
        (part @ own - _quadratic(part, products) / size) / (size - 1)
        for part, size in ((first, len(one)), (second, len(two)))
    ]
    wider = (spreads[0].clamp_min(1e-300).log() - spreads[1].clamp_min(1e-300).log()).abs()
    return _share_as_large(_quadratic(apart, products)), _share_as_large(wider)


def _products(draws: Tensor) -> Tensor:
    """Return the inner products (S, S) of centred draws (S, D), each number in its own scale."""
    centred = draws.double().cpu()
    centred = centred - centred.mean(0)
    scale = centred.square().mean(0).sqrt()
    centred = centred / torch.where(scale > 0, scale, 1.0)
    return centred @ centred.T


def _quadratic(weights: Tensor, products: Tensor) -> Tensor:
    return ((weights @ products) * weights).sum(1)


def _share_as_large(values: Tensor) -> float:
    """Return which share of ``values`` reaches the first of them, itself included."""
    least = values[0] - 1e-9 * values[0].abs()  # equal values differ by rounding
    return float((values >= least).double().mean())
