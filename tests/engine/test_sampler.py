"""The sampler draws what the noise would draw layer by layer, and names what it cannot use."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.passes import passes
from smoothinfer.engine.sampler import Sampler, noisy_weights
from smoothinfer.engine.tracing import tensors_of


def generators(count):
    return [torch.Generator().manual_seed(s) for s in range(count)]


NOISE = {"pni": si.PNI("channel"), "cni": si.CNI(rank=2), "uniform": si.Uniform(0.1)}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_weights_of_several_passes_are_those_of_each_alone(noise, net):
    noisy = si.NoisyModel(net, weights=noise).eval()
    sampler = Sampler(tensors_of(net), noisy.noise_of_weights())
    block = sampler.draw_block(generators(5))
    for s, generator in enumerate(generators(5)):
        alone = sampler.draw_weights(generator)
        assert set(alone) == set(block) == set(noisy.noise_of_weights())
        assert all(torch.equal(block[name][s], weight) for name, weight in alone.items())


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_weights_with_gradients_are_the_same_numbers(noise, net):
    noisy = si.NoisyModel(net, weights=noise).eval()
    sampled = Sampler(tensors_of(net), noisy.noise_of_weights()).draw_weights(*generators(1))
    clean = {name: net.get_parameter(name) for name in noisy.noise_of_weights()}
    drawn = noisy_weights(clean, noisy.noise_of_weights(), *generators(1))
    for name, weight in drawn.items():
        assert torch.allclose(weight, sampled[name], atol=1e-6)
        assert weight.requires_grad
        assert not torch.equal(weight, clean[name])


def test_layers_with_one_weight_get_one_noise(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    net[3].weight = net[1].weight
    noisy = si.NoisyModel(net, weights=si.PNI(alpha=2.0)).eval()
    sampler = Sampler(tensors_of(net), noisy.noise_of_weights())
    drawn = sampler.draw(torch.Generator().manual_seed(0))
    assert torch.equal(drawn["1.weight"], drawn["3.weight"])
    assert not torch.equal(drawn["1.weight"], net[1].weight)
    with torch.no_grad():
        member = noisy.member(0, 0)(images)
    for count in (1, 6, len(images)):
        alone = next(passes(noisy, images[:count], 1, seed=0, precision="fp32"))
        assert torch.allclose(alone, member[:count], atol=1e-5)


def test_a_layer_that_holds_nan_is_named():
    # A fused rectifier turns NaN into 0: without this the verdict would look like any other.
    net = si.resnet20()
    with torch.no_grad():
        net.stages[1][0].conv1.weight[0, 0] = torch.nan
    smooth = si.SmoothedClassifier(si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval(), samples=2)
    with pytest.raises(si.InputError, match=r"stages\.1\.0\.conv1\.weight.*NaN"):
        smooth.predict(torch.rand(1, 3, 32, 32))
