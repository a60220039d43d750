"""Plan and samplers are kept with the model, and renewed as soon as the model has changed."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine import sampler_cache
from smoothinfer.engine.plan import Plan
from smoothinfer.engine.sampler import Sampler
from smoothinfer.noise import noisy_model
from smoothinfer.runtime.modes import attack_mode
from tests.conftest import small_net

NOISE = {
    "inputs": {"inputs": si.Gaussian(0.2)},
    "weights": {"weights": si.CNI(rank=1)},
}


@pytest.fixture(params=NOISE)
def noisy(request):
    return si.NoisyModel(small_net(), **NOISE[request.param]).eval()


def first_convolution(noisy):
    return noisy.module[1][0]


def step_of_an_optimizer(noisy):
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.5)
    noisy(torch.rand(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()


def load_other_weights(noisy):
    other = small_net(seed=1).state_dict()
    noisy.load_state_dict({f"module.{k}": v for k, v in other.items()}, strict=False)


def double_through_data(noisy):
    first_convolution(noisy).weight.data.mul_(2)


def negate_through_data(noisy):
    first_convolution(noisy).weight.data.neg_()


def move_statistics_through_data(noisy):
    noisy.module[1][1].running_mean.data.add_(0.5)


def exchange_a_layer(noisy):
    with si.isolated_rng(7):
        noisy.module[1][0] = nn.Conv2d(1, 4, 3, padding=1)


CHANGES = [
    step_of_an_optimizer,
    load_other_weights,
    double_through_data,
    negate_through_data,
    move_statistics_through_data,
    exchange_a_layer,
]


def predict(noisy, images, seed=0):
    return si.SmoothedClassifier(noisy, 8, "soft", seed=seed).predict(images).scores


def predict_afresh(noisy, images):
    """The answer of a copy of the model that keeps nothing from before."""
    copied = si.NoisyModel.__new__(type(noisy))
    nn.Module.__init__(copied)
    copied.__dict__.update(noisy.__getstate__())
    return predict(copied, images)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_vote_after_a_change_is_that_of_the_changed_model(change, noisy, images):
    before = predict(noisy, images)
    change(noisy)
    after = predict(noisy, images)
    assert not torch.allclose(after, before, atol=1e-4)
    assert torch.equal(after, predict_afresh(noisy, images))


@pytest.mark.parametrize("change", [torch.neg, lambda weight: weight.flip(0)], ids=["neg", "flip"])
def test_a_change_through_data_is_seen_where_the_sum_of_a_weight_stays_the_same(change, images):
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.2)).eval()
    weight = first_convolution(noisy).weight
    with torch.no_grad():  # as many negative numbers as positive ones
        weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
    before = predict(noisy, images)
    weight.data.copy_(change(weight.data))
    assert not torch.allclose(predict(noisy, images), before, atol=1e-4)


@pytest.mark.parametrize("place", ["inputs", "weights"])
def test_another_strength_of_the_noise_is_seen(place, images):
    noisy = si.NoisyModel(small_net(), **{place: si.Gaussian(0.05)}).eval()
    before = predict(noisy, images)
    for part in noisy.modules():
        if isinstance(part, si.Gaussian):
            part.sigma = 0.5
    assert not torch.allclose(predict(noisy, images), before, atol=1e-4)


@pytest.mark.parametrize("before", [torch.float64, torch.float16])
def test_a_model_that_changed_its_format_votes_anew(before, noisy, images):
    single = predict(noisy, images)
    noisy.to(before)
    if before == torch.float64:
        assert predict(noisy, images).isfinite().all()
        first_convolution(noisy).weight.data.mul_(2)
    noisy.to(torch.float32)
    after = predict(noisy, images)
    assert torch.equal(after, predict_afresh(noisy, images))
    assert not torch.equal(after, single)  # doubled, or rounded


def test_a_second_vote_makes_neither_plan_nor_sampler_anew(noisy, images, monkeypatch):
    made = []

    def count(kind):
        class Counted(kind):
            def __init__(self, *given, **more):
                made.append(kind.__name__)
                super().__init__(*given, **more)

        return Counted

    monkeypatch.setattr(noisy_model, "Sampler", count(Sampler))
    monkeypatch.setattr(sampler_cache, "Plan", count(Plan))
    predict(noisy, images)
    assert made.count("Plan") == 1
    first = list(made)
    for seed in (0, 1, None):
        predict(noisy, images, seed)
        predict(noisy, images[:2], seed)
    assert made == first
    double_through_data(noisy)
    predict(noisy, images)
    assert made.count("Sampler") > first.count("Sampler")
    assert made.count("Plan") == 1  # the layers are the same
    exchange_a_layer(noisy)
    predict(noisy, images)
    assert made.count("Plan") == 2


def test_under_attack_layers_are_checked_once_and_new_weights_are_seen(monkeypatch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1, linear=None)).eval()
    checks, plan_of = [], type(noisy).plan
    monkeypatch.setattr(type(noisy), "plan", lambda self: checks.append(1) or plan_of(self))
    images = torch.rand(3, 1, 2, 2)

    def answer(seed):
        return noisy(images, torch.Generator().manual_seed(seed))

    with attack_mode(noisy):
        with attack_mode(noisy):
            before = answer(0)
        assert torch.equal(answer(0), before)
        assert len(checks) == 1
        with torch.no_grad():
            net[1].weight.add_(1.0)
        assert not torch.equal(answer(0), before)
    # Outside anybody may exchange a layer between two passes.
    after = answer(0)
    net[1] = nn.Linear(4, 2)
    assert not torch.equal(answer(0), after)
    twin = noisy.with_inputs(si.Gaussian(0.1))
    with attack_mode(noisy):
        answer(0)
        assert twin._cache is not noisy._cache


def test_a_buffer_of_nan_is_like_itself(noisy, images, monkeypatch):
    """A pool would be filled anew at every vote, were it taken for a change."""
    noisy.module.register_buffer("unset", torch.full((3,), torch.nan))
    predict(noisy, images)
    made = []
    monkeypatch.setattr(noisy_model, "Sampler", lambda *args: made.append(0) or Sampler(*args))
    predict(noisy, images)
    assert not made
    noisy.module.unset.data.zero_()
    predict(noisy, images)
    assert made
