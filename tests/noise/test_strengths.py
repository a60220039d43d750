"""The strength of learned noise, in multiples of the spread of the tensor that it disturbs."""

import math

import pytest

import smoothinfer as si


def test_strengths_are_relative_to_the_weights(net):
    noisy = si.NoisyModel(net, weights=si.PNI("layer", alpha=0.25))
    assert all(value == pytest.approx(0.25) for value in noisy.strengths().values())
    noisy = si.NoisyModel(net, weights=si.CNI(rank=0, diagonal=0.01, linear=None))
    name, strength = next(iter(noisy.strengths().items()))
    spread = net.get_parameter(name).std().item()
    assert strength == pytest.approx(math.sqrt(0.01 / spread), rel=1e-4)


def test_strengths_of_inputs_and_activations_are_measured_on_images(net, images):
    noisy = si.NoisyModel(
        net, inputs=si.PNI(alpha=0.1), activations={"1.0": si.PNI(alpha=0.2)}, shape=(1, 8, 8)
    ).eval()
    assert noisy.strengths() == {}
    assert noisy.strengths(images) == pytest.approx({"inputs": 0.1, "1.0": 0.2})
    fixed = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    assert fixed.strengths(images) == {}  # its strength is not learned
