"""A model whose accuracies are known: a half-space under Gaussian noise."""

import pytest
import torch

import smoothinfer as si
from tests.conftest import HalfSpace

RADIUS, SIGMA = 0.05, 0.1


@pytest.fixture
def world():
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.15 * (torch.rand(200, 1, 4, 4, generator=generator) - 0.5)
    space = HalfSpace().eval()
    labels = (space.distance(images) > 0).long()
    return si.NoisyModel(space, inputs=si.Gaussian(SIGMA)).eval(), images, labels
