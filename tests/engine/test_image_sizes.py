"""Images of every size get votes, gradients and attacks, the same as from a naive loop."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.passes import passes
from smoothinfer.numerics.precision import tile_for

SIZES = [(1, 1), (1, 700), (7, 3), (33, 32), (224, 224), (256, 256), (257, 257), (363, 363)]
LARGE = [(513, 512), (1024, 1024), (2048, 2048), (1, 200_000)]


def tiny():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.mark.parametrize("size", SIZES + LARGE, ids=str)
def test_votes_are_those_of_one_pass_after_the_other(size):
    model = si.NoisyModel(tiny(), inputs=si.Gaussian(0.1), weights=si.PNI()).eval()
    images = torch.rand(3, 3, *size)
    found = torch.stack(list(passes(model, images, 2, seed=0, precision="fp32")))
    with torch.no_grad():
        expected = torch.stack([model.member(0, s)(images) for s in range(2)])
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attacks_and_predictions_run(size):
    model = si.NoisyModel(tiny(), weights=si.PNI()).eval()
    images, labels = torch.rand(2, 3, *size), torch.tensor([0, 1])
    found = si.pgd(model, images, labels, si.Linf(0.1), steps=2)
    assert found.shape == images.shape
    assert si.SmoothedClassifier(model, 4, seed=0).predict(found).labels.shape == (2,)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tile_is_a_power_of_two_that_falls_with_the_size(precision):
    before = 1024
    for side in (1, 2, 7, 16, 32, 33, 64, 224, 256, 257, 362, 363, 512, 1024, 2048, 5000):
        tile = tile_for(torch.empty(1, 1, 1, 1).expand(1, 3, side, side), precision)
        assert 1 <= tile <= before
        assert tile & (tile - 1) == 0
        before = tile
