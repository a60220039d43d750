"""Trained defences: each draws what its paper says, and its penalty has the closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import smoothinfer as si
from smoothinfer.defences import DEFENCES
from smoothinfer.defences.random_filters import RandomFilters
from smoothinfer.networks import ResNet
from smoothinfer.noise.penalties import penalty_of
from smoothinfer.recipes import load_recipe

DRAWS = 20_000
ERRORS = 4.5  # standard errors


def linear(rows):
    layer = nn.Linear(len(rows[0]), len(rows))
    layer.weight.data, layer.bias.data = torch.tensor(rows), torch.zeros(len(rows))
    return nn.Sequential(nn.Flatten(), layer).eval()


def draws_of(model, image, count=DRAWS):
    """Logits of one image in many passes, (count, K)."""
    with torch.no_grad(), si.isolated_rng(0):
        return torch.cat([model(image) for _ in range(count)])


def near_variance(found, truth):
    """Whether a sample variance of ``DRAWS`` normal draws is as the truth."""
    return abs(float(found) - truth) < ERRORS * truth * math.sqrt(2 / DRAWS)


def test_bayesian_weights_have_the_posterior_of_each_entry():
    model = DEFENCES["bayesian_weights"](linear([[1.0, -2.0]]), spread=0.3).eval()
    noise = next(iter(model.noise_of_weights().values()))
    noise.log_spread.data = torch.tensor([[0.3, 0.4]]).log()
    drawn = draws_of(model, torch.ones(1, 1, 1, 2))[:, 0]
    assert abs(float(drawn.mean()) + 1) < ERRORS * 0.5 / math.sqrt(DRAWS)
    assert near_variance(drawn.var(), 0.25)


def test_the_penalty_of_bayesian_weights_is_the_divergence_from_the_prior():
    model = DEFENCES["bayesian_weights"](linear([[1.0, -2.0]]), spread=0.3, prior=0.5, share=2.0)
    posterior = Normal(torch.tensor([1.0, -2.0]), 0.3)
    truth = 2 * kl_divergence(posterior, Normal(0.0, 0.5)).sum()
    assert torch.allclose(penalty_of(model), truth)
    model.module[1].weight.data.zero_()
    same = DEFENCES["bayesian_weights"](model.module, spread=0.5, prior=0.5, share=1.0)
    assert abs(penalty_of(same).item()) < 1e-6


def test_features_before_a_classifier_have_the_covariance_of_the_factor():
    model = DEFENCES["weight_covariance"](linear([[1.0, 0.0], [1.0, 1.0]]), (1, 1, 2)).eval()
    noise = next(iter(model.noise_of_activations().values()))
    noise.factor.data = torch.tensor([[0.5, 9.0], [1.0, 2.0]])  # the 9 is above the diagonal
    drawn = draws_of(model, torch.zeros(1, 1, 1, 2))
    assert near_variance(drawn[:, 0].var(), 0.25)
    assert near_variance(drawn[:, 1].var(), 1.5**2 + 2**2)
    assert torch.allclose(penalty_of(model), -torch.tensor(0.25 + 1.5**2 + 2**2).log())


def test_perturbed_features_share_a_draw_and_keep_the_least_scale():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten()).eval()
    nn.init.ones_(net[0].weight)
    model = DEFENCES["learned_perturbation"](net, (1, 1, 2), layers=["0"], gamma=0.5).eval()
    noise = next(iter(model.noise_of_activations().values()))
    noise.scale.data = torch.tensor([[[0.4, -3.0]]])
    both = model(torch.zeros(2, 1, 1, 2))
    assert torch.equal(both[0], both[1])
    drawn = draws_of(model, torch.zeros(1, 1, 1, 2))
    assert near_variance(drawn[:, 0].var(), 0.16)
    assert near_variance(drawn[:, 1].var(), 1e-4)
    penalty_of(model).backward()
    assert (noise.scale.grad != 0).all()  # an entry below the least can rise again
    truth = -0.5 * (math.sqrt(0.4) + math.sqrt(0.01))
    assert abs(float(penalty_of(model).detach()) - truth) < 1e-6


def test_perturbation_stands_at_the_stem_and_before_the_sum_of_every_block():
    net = nn.Sequential(nn.Identity(), ResNet(blocks=1, classes=3))
    model = DEFENCES["learned_perturbation"](net, (3, 8, 8))
    blocks = [f"1.stages.{stage}.0.bn2" for stage in range(3)]
    assert list(model.noise_of_activations()) == ["1.bn1", *blocks]


def test_random_weights_multiply_and_their_mean_stays_within_bounds():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten()).eval()
    nn.init.ones_(net[0].weight)
    model = DEFENCES["random_weights"](net, (1, 1, 2), low=0.25, high=0.5).eval()
    noise = next(iter(model.noise_of_activations().values()))
    for sigma, bounded in (([0.0, 0.1], [0.2, 0.3]), ([1, 2], [0, 1]), ([0.3, -0.4], [0.3, 0.4])):
        noise.sigma.data = torch.tensor([[sigma]], dtype=torch.float32)
        assert torch.allclose(noise.bounded(), torch.tensor([[bounded]], dtype=torch.float32))
    drawn = draws_of(model, torch.tensor([[[[2.0, 0.0]]]]))
    assert near_variance(drawn[:, 0].var(), (2 * 0.3) ** 2)
    assert (drawn[:, 1] == 0).all()


def test_drawn_filters_have_one_over_the_side_and_learned_ones_too():
    torch.manual_seed(0)
    layer = RandomFilters(nn.Conv2d(40, 30, 3), 20)
    one, two = layer.filters().detach(), layer.filters().detach()
    assert torch.equal(one[:10], two[:10])
    assert (one[10:] != two[10:]).all()
    assert torch.allclose(one[:10].std((1, 2, 3)), torch.full((10,), 1 / 3))
    count = one[10:].numel()
    assert abs(float(one[10:].std()) - 1 / 3) < ERRORS / 3 / math.sqrt(2 * count)


def test_every_layer_picks_its_normalisation_by_itself():
    norms = [nn.BatchNorm2d(4) for _ in range(2)]
    for norm in norms:
        norm.running_var.fill_(4.0)
    model = DEFENCES["norm_aggregation"](nn.Sequential(*norms, nn.Flatten())).eval()
    image = 3 * torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    seen = [tuple(each.tolist()) for each in draws_of(model, image, 400)]
    counts = [seen.count(each) for each in set(seen)]
    assert len(counts) == 4
    assert all(abs(each - 100) < ERRORS * math.sqrt(400 * 0.25 * 0.75) for each in counts)
    by_channel = nn.functional.instance_norm(nn.functional.instance_norm(image)).flatten()
    assert any(torch.allclose(torch.tensor(each), by_channel, atol=1e-5) for each in set(seen))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_groups_of_channels_are_normalised_together(size):
    model = DEFENCES["norm_aggregation"](nn.Sequential(nn.BatchNorm2d(8)), sizes=[size])
    image = torch.randn(2, 8, 3, 3)
    groups = model[0].choices[1](image).view(2, 8 // size, -1)
    assert torch.allclose(groups.mean(2), torch.zeros(()), atol=1e-5)
    assert torch.allclose(groups.var(2, correction=0), torch.ones(()), atol=1e-3)


def test_a_training_adds_the_penalty_and_other_noise_adds_none():
    model = DEFENCES["bayesian_weights"](linear([[1.0, -2.0]]))
    assert penalty_of(nn.Sequential(model)) == penalty_of(model)
    assert penalty_of(si.NoisyModel(linear([[1.0]]), weights=si.PNI())) == 0


@pytest.mark.parametrize(
    "name",
    ["bayesian-weights", "learned-perturbation", "norm-aggregation", "projection-filters",
     "random-weights", "self-ensemble", "weight-covariance", "noisy-weights", "coloured-weights"],
)  # fmt: skip
def test_recipes_of_defences_differ_from_the_plain_one_in_the_defence_alone(name):
    plain, own = (load_recipe(f"recipes/defences/{each}.yaml") for each in ("plain", name))
    changed = {key for key, value in own.to_dict().items() if plain.to_dict()[key] != value}
    assert changed & {"defence", "noise"}
    assert changed <= {"defence", "noise", "description", "noise_lr", "noise_decay"}
