"""Where noise enters: patterns of layer names, and activations on either side of a layer."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.conftest import small_net


def test_patterns_choose_layers_and_unknown_ones_are_refused(net):
    noisy = si.NoisyModel(net, weights={"1.0": si.PNI(), "1.*": si.CNI(rank=1, linear=None)})
    kinds = {name: type(noise).__name__ for name, noise in noisy.weight_noises.items()}
    assert kinds["1-0-weight"] == "PNI"
    assert set(kinds.values()) == {"PNI", "CNI"}
    with pytest.raises(si.InputError, match=r"unknown layer pattern 'conv9'.*1\.0"):
        si.NoisyModel(net, weights={"conv9": si.PNI()})
    with pytest.raises(si.InputError, match="no convolution"):
        si.NoisyModel(nn.Flatten(), weights=si.PNI())


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("noise", [si.PNI("channel"), si.CNI(rank=2), si.Gaussian(0.1)])
def test_activation_noise_on_any_layer(noise, side, net, images):
    noisy = si.NoisyModel(net, activations={"1.*": noise}, side=side, shape=(1, 8, 8)).eval()
    assert not torch.equal(noisy(images), noisy(images))
    member = noisy.member(0, 0)
    assert torch.equal(member(images), member(images))
    assert torch.allclose(member(images[:2]), member(images)[:2], atol=1e-6)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    with pytest.raises(si.InputError, match="shape"):
        si.NoisyModel(net, activations=noise)


def test_the_probe_of_activations_leaves_batch_statistics_alone():
    net = small_net().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    si.NoisyModel(net, activations=si.CNI(rank=1), shape=(1, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_bad_side_of_a_layer_is_refused():
    with pytest.raises(si.InputError, match="input, output"):
        si.NoisyModel(nn.Linear(2, 2), weights=si.PNI(), side="middle")
