import math

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.noise.base import Noise
from tests.conftest import small_net

ADDITIVE = ("gaussian", "uniform", "laplace")
DRAWS = 20_000


def make(name: str) -> Noise:
    return si.NOISES[name](0.1) if name in ADDITIVE else si.NOISES[name]()


@pytest.mark.parametrize("place", ["inputs", "weights", "activations"])
@pytest.mark.parametrize("name", si.NOISES)
def test_every_noise_at_every_place(name, place):
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


def test_shared_noise_is_one_realisation_for_the_batch():
    step = si.Gaussian(0.1)(torch.zeros(3, 1, 4, 4), shared=True)
    assert torch.equal(step[0], step[1])
    step = si.Gaussian(0.1)(torch.zeros(3, 1, 4, 4))
    assert not torch.equal(step[0], step[1])


def test_normalised_units_are_those_after_normalize():
    inner = nn.Sequential(si.Normalize([0.5], [0.25]), nn.Flatten())
    noisy = si.NoisyModel(inner, inputs=si.Gaussian(0.24, units="normalised"))
    seen = noisy(torch.full((1, 1, 200, 200), 0.5))
    assert seen.std().item() == pytest.approx(0.24, rel=4 / math.sqrt(2 * 40_000))
    with pytest.raises(si.InputError, match="Normalize"):
        si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.24, units="normalised"))


def test_pni_is_its_formula():
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for granularity, shape in (
        ("layer", (1,)),
        ("channel", (8, 1, 1, 1)),
        ("element", (8, 4, 3, 3)),
    ):
        noise = si.PNI(granularity, alpha=0.5).fit(weight.shape, "weights")
        assert tuple(noise.alpha.shape) == shape
        step = noise(weight, torch.Generator().manual_seed(1)) - weight
        eta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(step, 0.5 * weight.std() * eta, atol=1e-6)
    weight.requires_grad_()
    noise(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))  # std carries no gradient
    assert noise.alpha.grad is not None


@pytest.mark.parametrize("rank", [0, 2])
def test_cni_has_its_covariance(rank):
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    noise = si.CNI(rank=rank).fit(weight.shape, "weights")
    with torch.no_grad():
        noise.diagonal.copy_(torch.linspace(-0.5, 0.5, 6).view(2, 3))  # the sign does not matter
        noise.factor.normal_(generator=torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(3)
        steps = torch.stack([(noise(weight, generator) - weight).flatten() for _ in range(DRAWS)])
        factor = noise.factor
        expected = torch.diag((weight.std() * noise.diagonal).abs().flatten()) + factor @ factor.T
        measured = steps.T @ steps / DRAWS
        # Var of a product of Gaussians: C_ii C_jj + C_ij^2
        diagonal = expected.diagonal()
        error = ((diagonal[:, None] * diagonal + expected.square()) / DRAWS).sqrt()
        assert ((measured - expected).abs() < 4.5 * error + 1e-6).all()
        assert ((measured - 2 * expected).abs() > 4.5 * error + 1e-6).any()  # it can fail


def test_cni_gradients_reach_everything():
    weight = torch.randn(4, 3, requires_grad=True)
    noise = si.CNI(rank=2).fit(weight.shape, "weights")
    noise(weight).square().sum().backward()
    for tensor in (weight, noise.diagonal, noise.factor):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert not torch.equal(weight.grad, 2 * weight)  # through the standard deviation too


def test_cni_on_activations_is_one_vector_for_the_batch():
    noise = si.CNI(rank=2).fit(torch.Size((5, 2, 3, 3)), "activations")
    same = torch.randn(1, 2, 3, 3).expand(5, -1, -1, -1)
    step = noise(same) - same
    assert torch.allclose(step[0], step[4])


def test_the_linear_layer_of_cni_carries_element_wise_pni():
    noisy = si.NoisyModel(si.resnet20(), weights=si.CNI(rank=5))
    assert sum(p.numel() for p in noisy.parameters()) == 1_894_650
    assert isinstance(noisy.weight_noises["linear-weight"], si.PNI)
    assert noisy.weight_noises["linear-weight"].alpha.shape == (10, 64)
    pure = si.NoisyModel(si.resnet20(), weights=si.CNI(rank=1, linear=None))
    assert isinstance(pure.weight_noises["linear-weight"], si.CNI)


def test_learned_noise_lives_in_the_state_dict_and_moves_with_it(images):
    one = si.NoisyModel(small_net(seed=0), weights=si.CNI(rank=1)).eval()
    two = si.NoisyModel(small_net(seed=1), weights=si.CNI(rank=1)).eval()
    with torch.no_grad():
        for noise in one.weight_noises.parameters():
            noise.add_(0.1)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.member(0, 0)(images), two.member(0, 0)(images))


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


def test_activation_noise_in_training_uses_the_whole_batch(images):
    noise = si.PNI("layer", alpha=1.0).fit(torch.Size((2, 1, 4, 4)), "activations").train()
    quiet, loud = torch.zeros(1, 1, 4, 4), 10 * torch.randn(1, 1, 4, 4)
    batch = torch.cat([quiet, loud])
    assert (noise(batch) - batch)[0].abs().max() > 0  # the loud image's spread reaches the quiet
    assert torch.equal(noise.eval()(batch)[0], quiet[0])  # but no verdict depends on its batch


def test_bad_noise_is_refused():
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(si.InputError, match="sigma"):
            si.Gaussian(sigma)
    with pytest.raises(si.InputError, match="normalised, pixel"):
        si.Gaussian(0.1, units="percent")
    with pytest.raises(si.InputError, match="channel, element, layer"):
        si.PNI("chanel")
    with pytest.raises(si.InputError, match="rank"):
        si.CNI(rank=-1)
    with pytest.raises(si.InputError, match="input, output"):
        si.NoisyModel(nn.Linear(2, 2), weights=si.PNI(), side="middle")


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


def test_strengths_are_relative_to_the_weights(net):
    noisy = si.NoisyModel(net, weights=si.PNI("layer", alpha=0.25))
    assert all(value == pytest.approx(0.25) for value in noisy.strengths().values())
    noisy = si.NoisyModel(net, weights=si.CNI(rank=0, diagonal=0.01, linear=None))
    name, strength = next(iter(noisy.strengths().items()))
    spread = net.get_parameter(name).std().item()
    assert strength == pytest.approx(math.sqrt(0.01 / spread), rel=1e-4)
