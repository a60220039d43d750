"""Noise of a fixed distribution: its width, its family, its units."""

import math

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.noise.input_noise import with_input_noise

ADDITIVE = ("gaussian", "uniform", "laplace")


@pytest.mark.parametrize("name", ADDITIVE)
def test_sigma_is_the_standard_deviation(name):
    noise = si.NOISES[name](0.2)
    step = noise(torch.zeros(1, 1, 300, 300), torch.Generator().manual_seed(0))
    count = step.numel()
    kurtosis = {"gaussian": 3.0, "uniform": 1.8, "laplace": 6.0}[name]
    assert abs(step.mean()) < 4 * 0.2 / math.sqrt(count)
    error = math.sqrt((kurtosis - 1) / count)  # standard error of a variance, relative
    assert step.var().item() == pytest.approx(0.04, rel=4 * error)
    measured = (step.double() ** 4).mean() / step.double().var() ** 2
    assert measured.item() == pytest.approx(kurtosis, rel=0.1)  # the family, not just the width


def test_normalised_units_are_those_after_normalize():
    inner = nn.Sequential(si.Normalize([0.5], [0.25]), nn.Flatten())
    noisy = si.NoisyModel(inner, inputs=si.Gaussian(0.24, units="normalised"))
    seen = noisy(torch.full((1, 1, 200, 200), 0.5))
    assert seen.std().item() == pytest.approx(0.24, rel=4 / math.sqrt(2 * 40_000))
    with pytest.raises(si.InputError, match="Normalize"):
        si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.24, units="normalised"))


def test_a_bad_sigma_and_bad_units_are_refused():
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(si.InputError, match="sigma"):
            si.Gaussian(sigma)
    with pytest.raises(si.InputError, match="normalised, pixel"):
        si.Gaussian(0.1, units="percent")


def test_a_sigma_in_grey_levels_on_the_images_is_refused_with_the_remedy():
    model = nn.Sequential(si.Normalize([0.5], [0.25]), nn.Flatten()).eval()
    with pytest.raises(si.InputError, match=r"a sigma of 15 is wider.*15/255"):
        with_input_noise(model, 15)
    assert with_input_noise(model, 1).inputs.sigma == 1
    noisy = with_input_noise(si.NoisyModel(model).eval(), 1.5, "normalised")
    assert noisy.inputs.sigma == 1.5
