"""What every defence in ``DEFENCES`` promises, and a property of each that only it has."""

import inspect
import math

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.mixtures import find_mixture
from smoothinfer.building import defend
from smoothinfer.config.components import Component
from smoothinfer.defences import DEFENCES, Mixture
from smoothinfer.defences.pruned_features import prune
from smoothinfer.defences.short_numbers import quantise


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)).eval()


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def defended(name):
    others = [nn.Sequential(nn.Flatten(), nn.Linear(192, 4))] if name == "mixture" else []
    sized = "shape" in inspect.signature(DEFENCES[name]).parameters
    options = {"shape": (3, 8, 8)} if sized else {}
    options |= {"layers": ["1"]} if name == "learned_perturbation" else {}
    return DEFENCES[name](network(), *others, **options).eval()


@pytest.mark.parametrize("name", DEFENCES)
class TestEveryDefence:
    def test_passes_differ_and_a_seed_names_them(self, name, images):
        model = defended(name)
        passes = []
        for seed in (*range(8), 0):
            with si.isolated_rng(seed), torch.no_grad():
                passes.append(model(images))
        assert torch.equal(passes[0], passes[-1])
        assert any(not torch.equal(passes[0], each) for each in passes[1:-1])
        assert all(each.shape == (5, 4) and each.isfinite().all() for each in passes)

    def test_gradients_reach_the_images(self, name, images):
        leaf = images.clone().requires_grad_()
        defended(name)(leaf).square().sum().backward()
        assert leaf.grad.isfinite().all()
        assert (leaf.grad.flatten(1).abs().sum(1) > 0).all()

    def test_images_and_modes_stay_as_they_were(self, name, images):
        model, before = defended(name), images.clone()
        model(images)
        assert torch.equal(images, before)
        assert not model.training

    def test_the_engine_never_takes_one_pass_for_all(self, name, images):
        """Also inside of a noisy model, whose plan would record the pass that it was traced on."""
        model = si.NoisyModel(defended(name)).eval()
        with torch.no_grad():
            logits = [model.member(seed=0, s=number)(images) for number in range(12)]
        assert any(not torch.equal(logits[0], each) for each in logits)
        assert (si.SmoothedClassifier(model, 64, seed=0).predict(images).counts.sum(1) == 64).all()

    def test_it_is_voted_on_attacked_and_judged(self, name, images):
        model = defended(name)
        labels = si.SmoothedClassifier(model, 16, seed=0).predict(images).labels
        attacks = {"one_draw": si.ATTACKS["one_draw"], "pgd": si.ATTACKS["pgd"]}
        rows = si.evaluate(
            si.SmoothedClassifier(model, 8), (images, labels), attack=attacks, ball=si.Linf(0.05)
        )
        assert set(rows["attack"].to_pylist()) == {"none", "one_draw", "pgd"}


def test_the_mean_of_pruned_features_is_the_feature():
    """E[prune(h)] = h, with a standard error from the draws."""
    torch.manual_seed(0)
    features = torch.rand(1, 20).expand(20_000, 20)
    pruned = prune(features, 0.5)
    error = pruned.std(0) / math.sqrt(len(pruned))
    assert ((pruned.mean(0) - features[0]).abs() < 4.5 * error).all()
    assert (pruned == 0).any(0).all()


def test_a_feature_survives_as_often_as_its_size_says():
    torch.manual_seed(0)
    features = torch.tensor([[1.0, 2.0, 4.0, 1.0]]).expand(40_000, 4)
    kept = (prune(features, 1.0) != 0).double().mean(0)  # four draws
    truth = 1 - (1 - features[0].double() / 8) ** 4
    error = (truth * (1 - truth) / 40_000).sqrt()
    assert ((kept - truth).abs() < 4.5 * error).all()


def test_resized_images_are_inside_and_the_rest_is_black():
    seen = []

    class Watch(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.flatten(1)[:, :2]

    model = DEFENCES["resize_and_pad"](Watch().eval(), growth=1.5)
    for _ in range(60):
        model(torch.ones(1, 1, 8, 8))
    assert {tuple(each.shape[-2:]) for each in seen} == {(12, 12)}
    sides = [int(each.sum(-1).gt(0).sum()) for each in seen]
    assert all(int(each.sum()) == side**2 for each, side in zip(seen, sides, strict=True))
    assert set(sides) == {8, 9, 10, 11}
    places = {tuple(each.nonzero()[0].tolist()) for each in seen}
    assert len(places) > 8


def test_a_precision_has_so_many_values_and_gradients_pass():
    values = torch.linspace(-1, 1, 999, requires_grad=True)
    for bits in (2, 4, 8):
        short = quantise(values, bits)
        assert len(short.unique()) == 2**bits - 1
        assert (short - values).abs().max() <= 1 / (2**bits - 2) + 1e-6
    short.sum().backward()
    assert torch.equal(values.grad, torch.ones(999))


def test_many_bits_are_the_network_itself(images):
    exact = network()
    model = DEFENCES["random_precision"](exact, bits=[20])
    assert torch.allclose(model(images), exact(images), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "networks"),
    [
        (lambda: DEFENCES["random_precision"](network(), bits=[2, 3, 4]), 3),
        (lambda: Mixture([network(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))]), 2),
    ],
)
def test_finite_mixtures_are_found_as_such(model, networks, images):
    assert len(find_mixture(model().eval(), images).seeds) == networks


def test_a_mixture_answers_by_its_shares():
    ends = [nn.Sequential(nn.Flatten(), nn.Linear(2, 2)) for _ in range(2)]
    for end, bias in zip(ends, ([1.0, 0.0], [0.0, 1.0]), strict=True):
        nn.init.zeros_(end[1].weight)
        end[1].bias.data = torch.tensor(bias)
    model, image = Mixture(ends, [0.8, 0.2]).eval(), torch.zeros(1, 1, 1, 2)
    torch.manual_seed(0)
    first = sum(int(model(image).argmax()) == 0 for _ in range(2000)) / 2000
    assert abs(first - 0.8) < 4.5 * math.sqrt(0.16 / 2000)


def test_noise_stands_before_every_convolution():
    one, two = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(2))
    net = nn.Sequential(one, two, nn.Flatten())
    for part in net[:2]:
        nn.init.ones_(part.weight)
    model = DEFENCES["self_ensemble"](net, shape=(1, 64, 64), first=0.3, inner=0.4).eval()
    spread = model(torch.zeros(4, 1, 64, 64)).detach().std()
    assert abs(float(spread) - 0.5) < 4.5 * 0.5 / math.sqrt(2 * 4 * 64 * 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resize_and_pad", {"growth": 1}),
        ("random_transforms", {"count": 9}),
        ("activation_pruning", {"share": 0}),
        ("random_precision", {"bits": [1]}),
        ("mixture", {"shares": [1.0]}),
        ("self_ensemble", {"first": -1}),
        ("bayesian_weights", {"spread": 0}),
        ("bayesian_weights", {"share": -1}),
        ("learned_perturbation", {}),
        ("learned_perturbation", {"layers": ["1"], "start": 0.0}),
        ("weight_covariance", {"start": 0}),
        ("projection_filters", {"share": 1.0}),
        ("projection_filters", {"share": 0.01}),
        ("norm_aggregation", {"sizes": []}),
        ("norm_aggregation", {"sizes": [4]}),
        ("random_weights", {"low": 0.5, "high": 0.4}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(si.InputError):
        DEFENCES[name](network(), **options)


def test_rectifiers_called_as_methods_are_pruned_and_a_network_without_any_is_refused():
    class Methods(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 30)

        def forward(self, images):
            features = self.linear(images.flatten(1))
            return features.relu().relu_() if images.sum() > 0 else features  # no trace of this

    pruned = DEFENCES["activation_pruning"](Methods())
    image = torch.rand(1, 1, 2, 2)
    assert not torch.equal(pruned(image), pruned(image))
    with pytest.raises(si.InputError, match="no rectifier"):
        DEFENCES["activation_pruning"](nn.Flatten())(image)


def test_the_first_noise_of_a_self_ensemble_is_in_pixels():
    net = nn.Sequential(si.Normalize([0.0], [0.25]), nn.Conv2d(1, 1, 1, bias=False), nn.Flatten())
    nn.init.ones_(net[1].weight)
    model = DEFENCES["self_ensemble"](net, shape=(1, 64, 64), first=0.1).eval()
    spread = model(torch.zeros(4, 1, 64, 64)).detach().std()
    assert abs(float(spread) - 0.4) < 4.5 * 0.4 / math.sqrt(2 * 4 * 64 * 64)


class Shared(nn.Module):
    """One convolution and one normalisation under two names each, and a rectifier in place."""

    def __init__(self):
        super().__init__()
        self.first = self.again = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.norm = self.renamed = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, images):
        features = self.renamed(self.again(images))
        torch.relu_(features)  # its result is not used
        return self.last(features.mean((2, 3)))


@pytest.mark.parametrize("name", ["activation_pruning", "norm_aggregation", "projection_filters"])
def test_layers_that_run_under_another_name_are_defended_too(name, images):
    model = DEFENCES[name](Shared().eval())
    passes = []
    for seed in range(8):
        with si.isolated_rng(seed):
            passes.append(model(images))
    assert any(not torch.equal(passes[0], each) for each in passes)
    passes[0].sum().backward()


def test_drawn_filters_frame_images_as_the_layer_did(images):
    conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
    drawn = DEFENCES["projection_filters"](nn.Sequential(conv, nn.Identity()))[0]
    filters = drawn.filters()
    drawn.filters = lambda: filters
    conv.weight.data = filters.detach()
    assert torch.allclose(drawn(images), conv(images), atol=1e-6)


@pytest.mark.parametrize("name", DEFENCES)
def test_networks_of_doubles_are_defended(name, images):
    if name == "mixture":
        model = DEFENCES[name](network().double(), network().double())
    else:
        sized = "shape" in inspect.signature(DEFENCES[name]).parameters
        options = {"shape": (3, 8, 8)} if sized else {}
        options |= {"layers": ["1"]} if name == "learned_perturbation" else {}
        model = DEFENCES[name](network().double(), **options)
    assert model.eval()(images.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "network", "options", "message"),
    [
        ("random_precision", network, {"bits": []}, "at least one, not an empty one"),
        ("random_precision", network, {"bits": 8}, "must be a list"),
        ("random_precision", nn.Flatten, {}, "no convolution and no linear layer"),
        ("norm_aggregation", network, {"sizes": 2}, "must be a list"),
        ("projection_filters", lambda: nn.Sequential(nn.Conv2d(1, 8, 1)), {}, "of one number"),
    ],
)
def test_defences_that_cannot_be_are_refused(name, network, options, message):
    with pytest.raises(si.InputError, match=message):
        DEFENCES[name](network(), **options)


def test_a_refused_defence_leaves_the_network_as_it_was():
    net = network()
    with pytest.raises(si.InputError, match="cannot be split"):
        DEFENCES["norm_aggregation"](net, sizes=[4])
    assert isinstance(net[1], nn.BatchNorm2d)


def test_networks_of_different_classes_are_no_mixture():
    with pytest.raises(si.InputError, match="two networks"):
        DEFENCES["mixture"](network(), 3)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(si.InputError, match=r"\[4, 3\] classes"):
        defend(Component("mixture"), [network(), other], (3, 8, 8))
    with pytest.raises(si.InputError, match=r"\[4, 3\] classes"):
        si.Ensemble([network(), other])(torch.rand(1, 3, 8, 8))
    with pytest.raises(si.InputError, match="as a list"):
        si.Ensemble(network())
