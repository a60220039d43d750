"""Noise with a learned strength: its formulas, its gradients, its parameters."""

import pytest
import torch

import smoothinfer as si

DRAWS = 20_000


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


def test_activation_noise_in_training_uses_the_whole_batch(images):
    noise = si.PNI("layer", alpha=1.0).fit(torch.Size((2, 1, 4, 4)), "activations").train()
    quiet, loud = torch.zeros(1, 1, 4, 4), 10 * torch.randn(1, 1, 4, 4)
    batch = torch.cat([quiet, loud])
    assert (noise(batch) - batch)[0].abs().max() > 0  # the loud image's spread reaches the quiet
    assert torch.equal(noise.eval()(batch)[0], quiet[0])  # but no verdict depends on its batch


def test_a_bad_granularity_and_a_bad_rank_are_refused():
    with pytest.raises(si.InputError, match="channel, element, layer"):
        si.PNI("chanel")
    with pytest.raises(si.InputError, match="rank"):
        si.CNI(rank=-1)
