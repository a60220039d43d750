"""Every noise, at every place where it may enter."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.noise.base import Noise

ADDITIVE = ("gaussian", "grid_gaussian", "uniform", "laplace")


def make(name: str) -> Noise:
    return si.NOISES[name](0.1) if name in ADDITIVE else si.NOISES[name]()


@pytest.mark.parametrize("place", ["inputs", "weights", "activations"])
@pytest.mark.parametrize("name", si.NOISES)
def test_every_noise_is_drawn_afresh_and_repeats_at_every_place(name, place):
    shape = torch.Size((4, 3, 5, 5))
    noise = make(name).fit(shape, place)
    clean = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = clean.clone()
    one, two = noise(clean), noise(clean)
    assert one.shape == shape
    assert not torch.equal(one, two)  # a fresh draw at each call
    assert torch.equal(clean, before)  # the clean tensor is left alone
    a, b = (noise.eval()(clean, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)  # a replay from a key
    assert not torch.equal(a, clean)  # noise stays on in eval mode
    names = [name for name, _ in noise.named_parameters()]
    assert set(names) == set(noise.state_dict()) - {"unit"}


def test_shared_noise_is_one_realisation_for_the_batch():
    step = si.Gaussian(0.1)(torch.zeros(3, 1, 4, 4), shared=True)
    assert torch.equal(step[0], step[1])
    step = si.Gaussian(0.1)(torch.zeros(3, 1, 4, 4))
    assert not torch.equal(step[0], step[1])
