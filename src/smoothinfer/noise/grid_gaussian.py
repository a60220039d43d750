"""Gaussian noise in exact arithmetic, under which certificates hold for floats too."""

import math

import torch
from torch import Tensor

from smoothinfer.noise.additive import Gaussian
from smoothinfer.numerics.randomness import uniform

_STEP = 2.0**-16  # of the grid; sums below 128 in size are exact in float32
_ULP = 2.0**-53


class GridGaussian(Gaussian):
    """Rounds the image to a grid of 2^-16 and adds rounded N(0, sigma^2): all sums are exact.

    A network behind it sees points of the grid alone, drawn as if the rounding were the first layer
    of the network, for which the theorem about real numbers holds. With plain floats a network can
    tell from the last bits of x + noise which x it was. The rounding of images moves two of them
    apart by at most 2^-16 sqrt(d), which a certificate gives up, with the small error of the drawn
    distribution, see `loss`.

    Args:
        sigma: as for `Gaussian`, in pixels.

    Source: Voracek, Hein, *Sound Randomized Smoothing in Floating-Point Arithmetic*, ICLR 2023,
    arXiv 2207.07209.

    >>> noisy = GridGaussian(0.5)(torch.rand(2, 3, 4, 4))
    >>> bool((noisy * 2**16 == (noisy * 2**16).round()).all())
    True
    """

    def __init__(self, sigma: float) -> None:
        super().__init__(sigma)

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        # The rounding has the gradient of the identity, so that an attack sees through it.
        grid = clean + ((clean.detach() / _STEP).round() * _STEP - clean.detach())
        wide = clean.detach().to(torch.float64)
        drawn = (self.draw_like(uniform, wide, generator, shared) + _ULP / 2).clamp_max(1 - _ULP)
        steps = (torch.special.ndtri(drawn) * (self.sigma / _STEP)).round()
        return grid + (steps * _STEP).to(clean.dtype)

    def slack(self, entries: int) -> tuple[float, float]:
        """Return what a radius, and a share of passes, of images with ``entries`` numbers lose.

        A boundary between two points of the grid is off by at most the grid of the uniform numbers
        and the error of the quantile function, four units in the last place; summed over all points
        within 9 sigma and all entries it bounds the total variation of a pass. The certificate is
        of the vote under the exact distribution, which the drawn one may miss by as much.
        """
        points = 18 * self.sigma / _STEP
        return _STEP * math.sqrt(entries), min(1.0, entries * points * 5 * _ULP)
