"""Adversarial Bayesian networks: every weight has a Gaussian posterior (Liu et al. 2019)."""

import math

import torch
from torch import Tensor, nn

from smoothinfer.errors import plain_float
from smoothinfer.noise import Noise, NoisyModel
from smoothinfer.noise.base import Place


class Posterior(Noise):
    """w + exp(s) N(0, I), s learned per entry; see `bayesian_weights`."""

    log_spread: Tensor

    def __init__(self, spread: float, prior: float, share: float) -> None:
        super().__init__()
        self.spread, self.prior, self.share = spread, prior, share

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        twin = self._copy(place)
        twin.log_spread = nn.Parameter(torch.full(shape, math.log(self.spread)))
        return twin

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.log_spread.exp(), None

    def strength(self, clean: Tensor) -> float:
        """Return the root-mean-square exp(s) in multiples of std(w)."""
        return float(self.log_spread.detach().exp().square().mean().sqrt() / clean.detach().std())

    def penalty(self, weight: Tensor | None) -> Tensor:
        """Return share * KL(N(w, exp(2 s)) || N(0, prior^2)), summed over the entries."""
        assert weight is not None  # convolutions and linear layers have one
        size = (2 * self.log_spread).exp() + weight.square()
        each = math.log(self.prior) - self.log_spread + size / (2 * self.prior**2) - 0.5
        return self.share * each.sum()


def bayesian_weights(
    network: nn.Module, spread: float = 0.1, prior: float = 0.1, share: float = 0.02 / 50_000
) -> nn.Module:
    """w = mu + exp(s) N(0, I) for every weight of a convolution or linear layer.

    A `NoisyModel`. Its training adds share * KL(q || N(0, prior^2)) to the adversarial loss.

    Args:
        network: with convolutions or linear layers; it holds mu.
        spread: exp(s) at the start.
        prior: standard deviation of the prior.
        share: weight of the divergence: alpha over the number of training images.

    Raises:
        InputError: a number is out of range, or there is no such layer.

    Source: Liu et al. 2019, *Adv-BNN*, ICLR, arXiv 1810.01279; numbers of the authors' example.
    Normalisation stays without noise here, there it has some. Zimmermann 2019, arXiv 1907.00895,
    finds no strong evidence of robustness under gradients averaged over draws.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> bayesian_weights(net)(torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 2])
    """
    for name, value in (("spread", spread), ("prior", prior)):
        plain_float(name, value, above=0)
    plain_float("share", share, at_least=0)
    return NoisyModel(network, weights=Posterior(spread, prior, share))
