"""The same model under other noise on its inputs."""

from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.noise.additive import Gaussian
from smoothinfer.noise.grid_gaussian import GridGaussian
from smoothinfer.noise.noisy_model import NoisyModel


def with_input_noise(model: nn.Module, sigma: float | None, units: str = "pixel") -> nn.Module:
    """Return ``model`` with Gaussian noise of ``sigma`` on its inputs; ``None`` keeps its own.

    Args:
        model: in eval mode.
        sigma: standard deviation in ``units``.
        units: ``"pixel"`` or ``"normalised"``.

    Raises:
        InputError: the model cannot carry noise in normalised units, or in pixel units ``sigma``
            is wider than the pixels' range.
    """
    if sigma is None:
        return model
    noise: Gaussian = Gaussian(sigma, units)
    if units == "pixel" and noise.sigma > 1:
        raise InputError(
            f"a sigma of {noise.sigma:g} is wider than the pixels' range [0, 1]: in pixel units 15 "
            "of 255 grey levels are 15/255; units normalised measure it after normalisation"
        )
    if isinstance(model, NoisyModel):
        if isinstance(model.inputs, GridGaussian) and units == "pixel":
            noise = GridGaussian(sigma)  # whose certificates hold for floats too
        return model.with_inputs(noise)
    if sigma == 0:
        return model
    if units == "normalised":
        raise InputError("normalised units need a smoothinfer model; use units=pixel")
    noisy = NoisyModel(model, noise)
    return noisy.eval() if noisy.training else noisy
