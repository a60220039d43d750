"""Which noise has a theorem, and what its arithmetic takes away from a certificate."""

from dataclasses import dataclass

import torch
from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.noise import Gaussian, GridGaussian, NoisyModel
from smoothinfer.types import Images

_TESTED = 20_000  # numbers of the noise that are tested for a Gaussian


def certifiable_sigma(model: nn.Module) -> float:
    """Return the sigma of the Gaussian on the pixels of ``model``, for which the theorem holds.

    Raises:
        InputError: there is no such noise, or its numbers are not those of a Gaussian.
    """
    from scipy.stats import kstest, norm

    if not isinstance(model, NoisyModel):
        raise InputError("only a NoisyModel can be certified: its noise must be known")
    noise = model.inputs
    known = type(noise) in (Gaussian, GridGaussian)  # a subclass may draw anything
    if not known or not isinstance(noise, Gaussian) or noise.sigma == 0:
        raise InputError(
            f"no theorem for inputs={noise}: certificates need Gaussian noise of sigma > 0 on the "
            "pixels"
        )
    if noise.units != "pixel":
        raise InputError(
            "in normalised units the noise differs from channel to channel, and no L2 radius in "
            "pixels follows: use units='pixel'"
        )
    device = noise.unit.device
    generator = torch.Generator(device).manual_seed(0)
    drawn = noise(torch.zeros(1, 1, 1, _TESTED, device=device), generator).flatten().cpu()
    if kstest(drawn.numpy(), norm(scale=noise.sigma).cdf).pvalue < 1e-6:
        raise InputError(f"the noise of inputs={noise} is not Gaussian with that sigma")
    return noise.sigma


@dataclass(frozen=True)
class Slack:
    """What the arithmetic of a noise takes away from a radius and from a share of passes."""

    radius: float = 0.0
    share: float = 0.0


def slack_of(model: nn.Module, images: Images) -> Slack:
    """Return the slack of the noise of ``model``: none where the noise is drawn in floats."""
    noise = getattr(model, "inputs", None)
    if not isinstance(noise, GridGaussian):
        return Slack()
    return Slack(*noise.slack(images[0].numel()))
