"""Learn2Perturb: learned noise on the features of every residual block (Jeddi et al. 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError, plain_float
from smoothinfer.networks import BasicBlock, ResNet
from smoothinfer.noise import Noise, NoisyModel
from smoothinfer.noise.base import Place
from smoothinfer.numerics.randomness import normal

_LEAST = 0.01


class Perturbation(Noise):
    """h + S * N(0, I), S learned per entry, one draw for a batch; see `learned_perturbation`."""

    scale: Tensor

    def __init__(self, start: float, gamma: float) -> None:
        super().__init__()
        self.start, self.gamma = start, gamma

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        twin = self._copy(place)
        twin.scale = nn.Parameter(torch.full(shape[1:], self.start))
        return twin

    def bounded(self) -> Tensor:
        """Return S, at least 0.01; gradients pass there too, or an entry would be stuck."""
        return self.scale + (self.scale.clamp_min(_LEAST) - self.scale).detach()

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        return clean + self.bounded() * self.draw_like(normal, clean, generator, True)

    def strength(self, clean: Tensor) -> float:
        """Return the mean of S in multiples of std(h)."""
        return float(self.bounded().detach().mean() / clean.detach().std())

    def penalty(self, weight: Tensor | None) -> Tensor:
        """Return -gamma * sum sqrt(S): without it S would shrink to its least value."""
        return -self.gamma * self.bounded().sqrt().sum()


def learned_perturbation(
    network: nn.Module,
    shape: tuple[int, int, int] = (3, 32, 32),
    start: float = 0.25,
    gamma: float = 1e-4,
    layers: Sequence[str] = (),
) -> nn.Module:
    """h <- h + S * N(0, I) before the last rectifier of every residual block, and of the stem.

    A `NoisyModel`; its training adds -gamma sum sqrt(S). The authors move S and weights in turn.

    Args:
        network: a `ResNet`, or any network whose ``layers`` are named.
        shape: (C, H, W) of an image.
        start, gamma: S at the start; weight of the penalty.
        layers: names of the layers whose outputs are disturbed.

    Raises:
        InputError: no layer is named or known, or a number is out of range.

    Source: Jeddi et al. 2020, *Learn2Perturb*, CVPR, arXiv 2003.01090, and the authors' code.
    >>> from smoothinfer.networks import resnet20
    >>> learned_perturbation(resnet20(), (3, 8, 8))(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    # The last normalisation before the sum: noise added there is noise added to the sum.
    last = {BasicBlock: "bn2", ResNet: "bn1"}.items()
    found = [f"{n}.{bn}" for n, p in network.named_modules() for k, bn in last if isinstance(p, k)]
    if not (names := list(layers) or [name.lstrip(".") for name in found]):
        raise InputError("name the layers to disturb: the network has no residual blocks of ours")
    noise = Perturbation(plain_float("start", start, at_least=_LEAST), plain_float("gamma", gamma))
    return NoisyModel(network, activations=dict.fromkeys(names, noise), shape=shape)
