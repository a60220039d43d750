"""Weight-covariance alignment: noise before the classifier (Eustratiadis et al. 2021)."""

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError, plain_float
from smoothinfer.noise import Noise, NoisyModel
from smoothinfer.noise.base import Place


class Correlated(Noise):
    """z + L N(0, I), L lower triangular and learned, one draw for a batch."""

    factor: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        twin, size = self._copy(place), shape[1:].numel()
        twin.factor = nn.Parameter(self.start * torch.rand(size, size).tril())
        return twin

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        drawn = torch.randn(len(self.factor), generator=generator, device=clean.device)
        return clean + self.factor.tril() @ drawn.to(self.factor.dtype)

    def strength(self, clean: Tensor) -> float:
        """Return the root-mean-square noise in multiples of std(z)."""
        variance = self.factor.detach().tril().square().sum(1).mean()
        return float(variance.sqrt() / clean.detach().std())

    def penalty(self, weight: Tensor | None) -> Tensor:
        """Return -log sum_i w_i' L L' w_i, over the rows w_i of the classifier's weight."""
        assert weight is not None  # convolutions and linear layers have one
        return -(weight @ self.factor.tril()).square().sum().log()


def weight_covariance(
    network: nn.Module, shape: tuple[int, int, int] = (3, 32, 32), start: float = 1.0
) -> nn.Module:
    """z <- z + L N(0, I) on the input z of the last linear layer.

    A `NoisyModel`. Its training adds -log sum_i w_i' L L' w_i, which aligns the covariance L L'
    with the classifier's weights w_i: otherwise the noise would die out.

    Args:
        network: with a linear layer; there is noise before the last one.
        shape: (C, H, W) of an image.
        start: entries of L start as uniform in [0, ``start``).

    Raises:
        InputError: there is no linear layer, or ``start`` is not positive.

    Source: Eustratiadis et al. 2021, *Weight-Covariance Alignment*, ICML, arXiv 2010.08852, and the
    authors' code, which puts a layer of 32 features before the classifier; here z is the network's
    own.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> weight_covariance(net, (3, 2, 2))(torch.rand(5, 3, 2, 2)).shape
    torch.Size([5, 2])
    """
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise InputError("the network has no linear layer, before which noise could be added")
    noise = Correlated(plain_float("start", start, above=0))
    return NoisyModel(network, activations={names[-1]: noise}, side="input", shape=shape)
