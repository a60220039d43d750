"""The standard attack reaches the optimum where it is known, also where gradients cancel."""

import math
import re

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks import standard_attack
from smoothinfer.attacks.kept_stages import hearing_stages, keep_stages
from smoothinfer.attacks.mixtures import by_members, find_mixture
from smoothinfer.attacks.standard_attack import BUDGETS, standard

SHAPE = (1, 4, 4)


def direction(seed):
    vector = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


class Planes(nn.Module):
    """Answers by one of several half-spaces: class 0 where normal . (x - 1/2) > -lead."""

    def __init__(self, normals, leads, shares=None):
        super().__init__()
        self.normals = nn.Parameter(torch.stack(normals))
        self.leads = torch.tensor(leads)
        self.shares = torch.tensor(shares or [1.0] * len(normals))

    def forward(self, images):
        which = int(torch.multinomial(self.shares, 1))
        value = ((images - 0.5) * self.normals[which]).flatten(1).sum(1) + self.leads[which]
        return 20 * torch.stack([value, -value], 1)


def middle(count):
    return torch.full((count, *SHAPE), 0.5), torch.zeros(count, dtype=torch.long)


@pytest.mark.parametrize("ball", [si.Linf(0.1), si.L2(0.3)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 0.05])
@pytest.mark.parametrize("reach", [0.99, 1.02])
def test_a_half_space_is_lost_within_its_distance_and_not_beyond(ball, sigma, reach):
    """Under symmetric noise the vote turns at the plane, the steepest way to which is known."""
    normal = direction(0)
    most = float((normal * ball.ascend(normal[None].double())[0]).sum()) * ball.radius
    model = si.NoisyModel(Planes([normal], [reach * most]), inputs=si.Gaussian(sigma)).eval()
    images, labels = middle(6)
    found = standard(model, images, labels, ball, budget="quick")
    moved = -((found - images) * normal).flatten(1).sum(1)
    if reach < 1:  # a vote of 512 sees a lead of 2 standard errors, of sigma sqrt(pi / 2) / 22 each
        assert (moved > 0.985 * most).all()
    else:
        assert (moved <= most * (1 + 1e-5)).all()


def test_networks_are_told_apart_and_their_shares_known():
    model = Planes([direction(s) for s in range(3)], [0.1, 0.2, 0.3], [0.5, 0.3, 0.2])
    found = find_mixture(model, middle(2)[0])
    assert len(found.seeds) == 3
    shares = sorted(found.shares.tolist(), reverse=True)
    error = math.sqrt(0.25 / 96)
    assert all(abs(a - b) < 4.5 * error for a, b in zip(shares, [0.5, 0.3, 0.2], strict=True))


def test_endless_noise_is_no_mixture():
    noisy = si.NoisyModel(Planes([direction(0)], [0.1]), inputs=si.Gaussian(0.1)).eval()
    assert find_mixture(noisy, middle(2)[0]) is None
    with pytest.raises(si.InputError, match="more than 12 networks"):
        by_members(noisy, *middle(2), si.L2(0.3))


def planted(radius=0.3):
    """Three half-spaces whose normals add up to zero: the mean gradient vanishes.

    Any two of them are fooled together at a distance of lead / cos(60 degrees) = 2 leads.
    """
    one, two = direction(1), direction(2)
    two = two - (two * one).sum() * one
    two = two / two.norm()
    normals = [math.cos(a) * one + math.sin(a) * two for a in (0.0, 2.0944, 4.18879)]
    return Planes(normals, [0.47 * radius] * 3)


def vote_of(model, points):
    with torch.no_grad():
        draws = torch.stack([model(points).argmax(1) for _ in range(400)])
    return (draws == 1).float().mean(0)


def test_a_planted_mixture_that_the_mean_gradient_does_not_see_is_broken():
    model, ball, (images, labels) = planted(), si.L2(0.3), middle(4)
    torch.manual_seed(0)
    blind = si.pgd(
        model, images, labels, ball, steps=40, draws=60, loss="margin", random_start=False
    )
    assert (vote_of(model, blind) < 0.5).all()  # one network of three is fooled, or none
    found = standard(model, images, labels, ball, budget="quick")
    assert (vote_of(model, found) > 0.55).all()


def test_a_mixture_out_of_reach_stays_whole():
    model = planted()
    model.leads *= 1.1  # two at once now lie at 1.03 radii
    found = standard(model, *middle(4), si.L2(0.3), budget="quick")
    assert (vote_of(model, found) < 0.5).all()


class Memory:
    """Keeps what an attack saves, and stops it after some stages."""

    def __init__(self, stops_after):
        self.state, self.left = None, stops_after

    def load(self):
        return self.state

    def save(self, state):
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stops", [1, 3])
def test_a_killed_attack_goes_on_with_its_next_stage(stops):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    images, ball = torch.rand(6, *SHAPE), si.Linf(0.02)
    labels = si.SmoothedClassifier(noisy, 256, seed=0).predict(images).labels

    def attack(kept=None):
        generator = torch.Generator().manual_seed(3)
        with keep_stages(kept):
            return standard(noisy, images, labels, ball, budget="quick", generator=generator)

    whole, memory = attack(), Memory(stops)
    with pytest.raises(KeyboardInterrupt):
        attack(memory)
    assert torch.equal(attack(memory), whole)


def test_budgets_grow():
    quick, usual, full = BUDGETS.values()
    for small, large in ((quick, usual), (usual, full)):
        assert all(getattr(small, name) <= getattr(large, name) for name in vars(small))


def test_more_budget_breaks_no_less(noisy_pair):
    model, images, labels = noisy_pair
    left = []
    for budget in ("quick", "standard"):
        generator = torch.Generator().manual_seed(0)
        found = standard(model, images, labels, si.Linf(0.05), budget=budget, generator=generator)
        smooth = si.SmoothedClassifier(model, 256, seed=1)
        left.append(int((smooth.predict(found).labels == labels).sum()))
    assert left[1] <= left[0] + 1


@pytest.fixture
def noisy_pair():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    model = si.NoisyModel(net, weights=si.PNI()).eval()
    images = torch.rand(8, *SHAPE)
    labels = si.SmoothedClassifier(model, 256, seed=0).predict(images).labels
    return model, images, labels


def test_the_classes_are_ordered_once_so_that_none_is_left_out(noisy_pair, monkeypatch):
    model, images, labels = noisy_pair
    seen, real = [], standard_attack.order_classes

    def order(*arguments):
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(standard_attack, "order_classes", order)
    standard(model, images, labels, si.Linf(0.001), budget="quick")
    (found,) = seen
    rows = torch.cat([labels[:, None], found], 1).sort(1).values
    assert torch.equal(rows, torch.arange(3).expand(8, 3))


def test_each_stage_says_how_many_images_are_left(noisy_pair):
    model, images, labels = noisy_pair
    heard = []
    with hearing_stages(heard.append):
        standard(model, images, labels, si.Linf(0.03), budget="quick")
    left = [int(re.fullmatch(r"standard, .+: (\d)/8 left", line)[1]) for line in heard]
    assert left[0] == 8
    assert left == sorted(left, reverse=True)
    assert len(heard) > 3
