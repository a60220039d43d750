"""Noise: its distributions, and the places where it enters a network."""

from collections.abc import Callable

from smoothinfer.noise.additive import Gaussian, Laplace, Uniform
from smoothinfer.noise.base import Noise
from smoothinfer.noise.grid_gaussian import GridGaussian
from smoothinfer.noise.learned import CNI, PNI
from smoothinfer.noise.noisy_model import NoisyModel

NOISES: dict[str, Callable[..., Noise]] = {
    "gaussian": Gaussian,
    "grid_gaussian": GridGaussian,
    "uniform": Uniform,
    "laplace": Laplace,
    "pni": PNI,
    "cni": CNI,
}

__all__ = [
    "CNI",
    "NOISES",
    "PNI",
    "Gaussian",
    "GridGaussian",
    "Laplace",
    "Noise",
    "NoisyModel",
    "Uniform",
]
