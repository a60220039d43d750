"""Noise of a fixed distribution, added to the images: Gaussian, uniform, Laplace.

All three take their strength as the standard deviation ``sigma``, so that they compare.
"""

import math

import torch
from torch import Tensor

from smoothinfer.errors import plain_float, unknown
from smoothinfer.noise.base import Noise
from smoothinfer.numerics.randomness import normal, uniform

UNITS = ("pixel", "normalised")


class Additive(Noise):
    """clean + sigma * z with z of mean 0 and variance 1, independent in every entry.

    Args:
        sigma: standard deviation, not negative, in ``units``.
        units: ``"pixel"`` (images in [0, 1]) or ``"normalised"`` (after the model's
            `Normalize`, as in the paper: 0.24 there is about 0.06 in pixels on CIFAR-10).

    Raises:
        InputError: ``sigma`` is negative or not finite, or ``units`` is unknown.
    """

    unit: Tensor

    def __init__(self, sigma: float, units: str = "pixel") -> None:
        super().__init__()
        self.sigma, self.units = plain_float("sigma", sigma, at_least=0), units
        if units not in UNITS:
            raise unknown("units", units, UNITS)
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def in_units_of(self, std: Tensor) -> None:
        """Measure ``sigma`` in multiples of ``std``, one value per channel, (1, C, 1, 1)."""
        self.unit = std

    def draw(self, clean: Tensor, generator: torch.Generator | None, shared: bool) -> Tensor:
        """Draw z: mean 0, variance 1, in the shape of ``clean`` (of one image if shared)."""
        raise NotImplementedError

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        if self.sigma == 0:
            return clean
        step = self.sigma * self.unit.to(clean.dtype)
        return clean + step * self.draw(clean, generator, shared)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}, units={self.units}"


class Gaussian(Additive):
    """clean + N(0, sigma^2), the noise of randomised smoothing.

    Source: Nemcovsky et al. 2019, equation (7); Cohen, Rosenfeld, Kolter 2019.

    >>> noisy = Gaussian(0.5)(torch.zeros(1, 1, 100, 100), torch.Generator().manual_seed(0))
    >>> round(noisy.std().item(), 1)
    0.5
    """

    def draw(self, clean: Tensor, generator: torch.Generator | None, shared: bool) -> Tensor:
        return self.draw_like(normal, clean, generator, shared)

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        return (self.sigma * self.unit.to(clean.dtype)).expand(clean.shape), None


class Uniform(Additive):
    """clean + U(-a, a) with a = sqrt(3) sigma, so that the standard deviation is sigma.

    >>> noisy = Uniform(0.1)(torch.zeros(1, 1, 50, 50))
    >>> bool(noisy.abs().max() <= 0.1 * 3**0.5)
    True
    """

    def draw(self, clean: Tensor, generator: torch.Generator | None, shared: bool) -> Tensor:
        return math.sqrt(12) * (self.draw_like(uniform, clean, generator, shared) - 0.5)


class Laplace(Additive):
    """clean + Laplace(0, b) with b = sigma / sqrt(2), so that the standard deviation is sigma.

    >>> Laplace(0.1)(torch.zeros(1, 1, 2, 2)).shape
    torch.Size([1, 1, 2, 2])
    """

    def draw(self, clean: Tensor, generator: torch.Generator | None, shared: bool) -> Tensor:
        centred = self.draw_like(uniform, clean, generator, shared) - 0.5
        # 1 - 2|u| is 0 only for u = -1/2, which rand can return: keep the logarithm finite.
        tail = torch.log1p(-2 * centred.abs().clamp_max(0.5 - 1e-7))
        return -centred.sign() * tail / math.sqrt(2)
