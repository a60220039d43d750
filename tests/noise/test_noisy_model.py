"""A network under noise: what it shares, saves and leaves as it is."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.noise.input_noise import with_input_noise
from tests.conftest import small_net


def test_learned_noise_lives_in_the_state_dict_and_moves_with_it(images):
    one = si.NoisyModel(small_net(seed=0), weights=si.CNI(rank=1)).eval()
    two = si.NoisyModel(small_net(seed=1), weights=si.CNI(rank=1)).eval()
    with torch.no_grad():
        for noise in one.weight_noises.parameters():
            noise.add_(0.1)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.member(0, 0)(images), two.member(0, 0)(images))


def test_sigma_zero_and_no_noise_are_the_network_itself(net, images):
    # to rounding: batch normalisation is folded into the convolutions
    assert torch.allclose(si.NoisyModel(net)(images), net(images), atol=1e-6)
    quiet = si.NoisyModel(net, inputs=si.Gaussian(0.0))
    assert torch.allclose(quiet(images), net(images), atol=1e-6)


def test_with_inputs_shares_everything_else(net, images):
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1)).eval()
    twin = noisy.with_inputs(si.Gaussian(0.2))
    assert noisy.inputs is None
    assert twin.module is noisy.module
    assert set(map(id, twin.parameters())) == set(map(id, noisy.parameters()))
    assert torch.equal(noisy.with_inputs(None).member(0, 1)(images), noisy.member(0, 1)(images))
    assert not torch.equal(twin.member(0, 1)(images), noisy.member(0, 1)(images))


def test_input_noise_is_replaced_or_kept(net, images):
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1), weights=si.PNI()).eval()
    assert with_input_noise(noisy, None) is noisy
    louder = with_input_noise(noisy, 0.3)
    assert (louder.inputs.sigma, noisy.inputs.sigma) == (0.3, 0.1)
    assert louder.module is net
    quiet = with_input_noise(noisy, 0.0)
    assert torch.equal(quiet.member(0, 1)(images), noisy.with_inputs(None).member(0, 1)(images))


def test_a_module_without_noise_gets_input_noise_where_sigma_is_not_zero(net, images):
    assert with_input_noise(net, None) is net
    assert with_input_noise(net, 0.0) is net
    noisy = with_input_noise(net, 0.2)
    assert not torch.equal(noisy(images), noisy(images))
    assert noisy.inputs.sigma == 0.2
    assert not noisy.training
    assert not with_input_noise(small_net().train(), 0.2).training  # a vote needs eval mode
    with pytest.raises(si.InputError, match="units=pixel"):
        with_input_noise(net, 0.2, "normalised")
    within = with_input_noise(si.NoisyModel(net).eval(), 0.2, "normalised")
    assert within.inputs.units == "normalised"


def test_a_forward_draws_the_weights_that_training_draws(net, images):
    """The snapshot that passes use, and the weights with gradients, from one generator."""
    noisy = si.NoisyModel(net, weights=si.CNI(rank=2)).eval()

    def answer():
        return noisy(images, torch.Generator().manual_seed(0))

    with_gradients = answer()
    assert with_gradients.requires_grad
    with torch.no_grad():
        assert torch.allclose(answer(), with_gradients, atol=1e-5)


class Idle(nn.Module):
    """Has a layer that its forward never calls, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.twin = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.twin.weight = self.used.weight

    def forward(self, images):
        return self.twin(self.used(images.flatten(1)))


def test_a_weight_of_two_layers_has_one_noise():
    noisy = si.NoisyModel(Idle(), weights={"used": si.PNI(), "twin": si.PNI()}).eval()
    assert list(noisy.strengths()) == ["used.weight"]
    image = torch.rand(1, 1, 2, 2)
    assert not torch.equal(noisy(image), noisy(image))
    member = noisy.member(0, 0)
    assert torch.equal(member(image), member(image))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: si.NoisyModel(net, inputs=0.06), "inputs must be a Noise, not 0.06"),
        (
            lambda net: si.NoisyModel(net, weights=si.CNI),
            "weights must be a Noise, not the class CNI",
        ),
        (lambda net: si.NoisyModel(net, weights={"*": "cni"}), "weights must be a Noise"),
        (lambda net: si.NoisyModel("resnet20"), "module must be a Module"),
        (
            lambda net: si.NoisyModel(Idle(), activations=si.PNI(), shape=(1, 2, 2)),
            "layer 'idle' never runs",
        ),
        (
            lambda net: si.NoisyModel(
                nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))),
                weights=si.PNI(),
            ),
            "layer '0' computes its weight",
        ),
        (lambda net: si.NoisyModel(net, inputs=si.PNI("element")), r"give shape=\(C, H, W\)"),
        (lambda net: si.NoisyModel(net, inputs=si.PNI("channel")), r"give shape=\(C, H, W\)"),
    ],
)
def test_what_cannot_carry_noise_or_be_noise_is_refused(make, message, net):
    with pytest.raises(si.InputError, match=message):
        make(net)
