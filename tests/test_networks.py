"""Networks: their sizes, their parameters, and normalisation as a first layer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.networks import WideResNet


@pytest.mark.parametrize("name", si.MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_model_takes_images(name, channels):
    net = si.MODELS[name](classes=7, channels=channels).eval()
    images = torch.rand(2, channels, 32, 32)
    assert net(images).shape == (2, 7)
    alone, together = net(images[:1]), net(images)[:1]
    assert torch.allclose(alone, together, atol=1e-5 * float(together.abs().max().detach()))


def test_parameter_counts_are_the_papers():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(si.resnet20()) == 272_474
    assert count(si.NoisyModel(si.resnet20(), weights=si.CNI(rank=5))) == 1_894_650
    with torch.device("meta"):
        assert count(si.MODELS["wrn34_10"]()) == 46_160_474


def test_normalize_is_its_formula():
    images = torch.rand(2, 3, 4, 4)
    normalize = si.Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    assert torch.allclose(normalize(images)[:, 1], (images[:, 1] - 0.2) / 0.6)
    with pytest.raises(si.InputError, match="1 channels"):
        normalize(torch.rand(2, 1, 4, 4))
    for mean, std in (([0.1], [0.0]), ([0.1, 0.2], [0.5])):
        with pytest.raises(si.InputError, match="std"):
            si.Normalize(mean, std)


@pytest.mark.parametrize("depth", [4, 11, 33])
def test_a_wide_resnet_of_another_depth_is_refused(depth):
    with pytest.raises(si.InputError, match=f"not {depth}"):
        WideResNet(depth, widen=1)


def test_the_logits_of_a_network_that_returns_an_object_are_taken(images):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, images):
            return SimpleNamespace(logits=self.head(images.flatten(1)), loss=None)

    network = WithLoss()
    with pytest.raises(si.InputError, match="LogitsOf"):
        si.SmoothedClassifier(network.eval(), 2).predict(images)
    wrapped = si.LogitsOf(network).eval()
    assert torch.equal(wrapped(images), network.head(images.flatten(1)))
    answer = si.SmoothedClassifier(wrapped, 2).predict(images)
    assert torch.equal(answer.labels, wrapped(images).argmax(1))
