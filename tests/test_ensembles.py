"""Ensembles: the mean of probabilities, its variance, and certificates of it."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.ensembles import Ensemble, member_correlation
from tests.conftest import FirstPixel, images_at


def linear(weight):
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([weight, [0.0] * 4])
    return nn.Sequential(nn.Flatten(), layer).eval()


def noisy_copies(count=20_000):
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 0.2 * torch.randn(count, 1, 2, 2, generator=generator)


def test_an_ensemble_answers_with_the_mean_of_probabilities():
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)]
    images = torch.rand(5, 1, 2, 2)
    mean = torch.stack([network(images).softmax(1) for network in networks]).mean(0)
    answer = Ensemble(networks)(images)
    assert torch.allclose(answer.softmax(1), mean, atol=1e-6)
    certain = Ensemble([linear([400.0] * 4)])
    images.requires_grad_()
    certain(images)[:, 1].sum().backward()
    assert (images.grad.abs() > 0).any()  # a probability of e^-800 has a gradient still


@pytest.mark.parametrize(
    ("other", "correlation"),
    [([1.0, 0.0, 0.0, 0.0], 1.0), ([0.0, 1.0, 0.0, 0.0], 0.0), ([1.0, 1.0, 0.0, 0.0], 0.5**0.5)],
)
def test_the_correlation_of_members_is_the_angle_of_their_weights(other, correlation):
    ensemble = Ensemble([linear([1.0, 0.0, 0.0, 0.0]), linear(other)])
    found = member_correlation(ensemble, noisy_copies())
    assert found == pytest.approx(correlation, abs=0.03)


def test_the_spread_of_a_pass_falls_as_horvath_says():
    """Var of the mean lead of k members: that of one times (1 + c (k - 1)) / k."""
    members = [linear(row) for row in torch.eye(4).tolist()]
    images = noisy_copies()
    leads = torch.stack([network(images)[:, 0] for network in members]).detach()
    for count in (2, 4):
        correlation = member_correlation(Ensemble(members[:count]), images)
        ratio = float(leads[:count].mean(0).var() / leads[0].var())
        assert ratio == pytest.approx((1 + correlation * (count - 1)) / count, abs=0.02)


def test_an_ensemble_of_one_network_is_certified_like_it():
    single = si.NoisyModel(FirstPixel(), inputs=si.Gaussian(0.2)).eval()
    three = si.NoisyModel(Ensemble([FirstPixel()] * 3), inputs=si.Gaussian(0.2)).eval()
    how = {"radii": [0.0, 0.1, 0.2], "samples": 2000, "seed": 0}
    one, other = (si.certify(model, images_at([0.15, 0.3]), **how) for model in (single, three))
    assert torch.equal(one.radii, other.radii)


def test_no_network_is_no_ensemble():
    with pytest.raises(si.InputError, match="at least one network"):
        Ensemble([])
    with pytest.raises(si.InputError, match="network"):
        Ensemble([3])
    with pytest.raises(si.InputError, match="at least two members"):
        member_correlation(Ensemble([linear([1.0] * 4)]), noisy_copies(10))
    with pytest.raises(si.InputError, match="alike"):
        member_correlation(Ensemble([linear([0.0] * 4)] * 2), noisy_copies(10))
