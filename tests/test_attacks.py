from functools import partial
from inspect import signature
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.gradients import mean_gradient, mean_objective, pooled_gradient
from smoothinfer.attacks.objectives import cross_entropy, margin
from tests.conftest import HalfSpace

RADIUS = 0.05


@pytest.fixture
def middle():
    """Images far from the edges of the pixel range, so that the ball alone binds."""
    generator = torch.Generator().manual_seed(3)
    return 0.5 + 0.2 * (torch.rand(20, 1, 4, 4, generator=generator) - 0.5)


@pytest.fixture
def sides(half_space, middle):
    return (half_space.distance(middle) > 0).long()


@pytest.mark.parametrize("ball", si.BALLS)
@pytest.mark.parametrize("name", si.ATTACKS)
def test_every_attack_keeps_its_promises(name, ball, net, images, labels):
    attack, ball = si.ATTACKS[name], si.BALLS[ball](RADIUS)
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1), weights=si.CNI(rank=1)).eval()
    before, kept = images.clone(), {k: v.clone() for k, v in noisy.state_dict().items()}
    moved = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.dtype == images.dtype
    assert (ball.distance(moved, images) <= RADIUS + 1e-5).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad
    assert torch.equal(images, before)
    assert all(torch.equal(kept[k], v) for k, v in noisy.state_dict().items())
    assert all(p.grad is None for p in noisy.parameters())
    again = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)  # a generator fixes the start and the noise
    other = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(moved, other)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)  # the global generator is left alone


@pytest.mark.parametrize("ball", si.BALLS)
@pytest.mark.parametrize("name", si.ATTACKS)
def test_every_attack_reaches_the_optimum_of_a_half_space(name, ball, half_space, middle, sides):
    """The best step moves d by radius times the dual norm; 99 % of it must be reached."""
    ball = si.BALLS[ball](RADIUS)
    best = RADIUS * half_space.normal.norm(p=1 if isinstance(ball, si.Linf) else 2)
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.1)).eval()
    # Seven steps of a quarter radius cannot cross the ball from a start in the far corner.
    options = {"steps": 20} if "steps" in signature(si.ATTACKS[name]).parameters else {}
    moved = si.ATTACKS[name](noisy, middle, sides, ball, **options)
    shift = half_space.distance(moved) - half_space.distance(middle)
    assert (shift * (1 - 2 * sides) >= 0.99 * best).all()


def test_fgsm_is_one_full_step_of_pgd(net, images, labels):
    ball = si.Linf(RADIUS)
    one = si.pgd(net, images, labels, ball, steps=1, step_size=RADIUS, random_start=False)
    assert torch.equal(si.fgsm(net, images, labels, ball), one)
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(points), labels, reduction="sum"), points)
    assert torch.allclose(one, (images + RADIUS * gradient.sign()).clamp(0, 1))


def test_pgd_does_not_depend_on_the_batch(net, images, labels):
    run = partial(si.pgd, net, ball=si.Linf(RADIUS), steps=5, random_start=False)
    alone = torch.cat([run(images[i : i + 2], labels[i : i + 2]) for i in (0, 2, 4)])
    assert torch.allclose(run(images, labels), alone, atol=1e-6)


def test_more_steps_never_lose_on_a_linear_model(half_space, middle, sides):
    losses = [
        mean_objective(
            half_space,
            si.pgd(half_space, middle, sides, si.Linf(RADIUS), steps=k, random_start=False),
            sides,
            cross_entropy,
        ).mean()
        for k in range(1, 8)
    ]
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(losses))


class Turning(nn.Module):
    """A loss whose gradient turns around at once: accumulated steps go on, zeroed ones turn."""

    def forward(self, images):
        up = -10 * (images.flatten(1).sum(1) - 0.53).square()
        return torch.stack([-up, up], 1)


def test_accumulate_never_forgets():
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    run = partial(si.pgd, Turning(), image, label, si.Linf(1.0), step_size=0.02, random_start=False)
    # Steps: 0.52, 0.54, then the gradient points back; its sum still points on.
    zeroed, kept = run(steps=3), run(steps=3, accumulate=True)
    assert zeroed.item() == pytest.approx(0.52, abs=1e-6)
    assert kept.item() == pytest.approx(0.56, abs=1e-6)


def test_the_mean_gradient_has_less_noise(net, images, labels):
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1)).eval()

    def gradients(draws):
        torch.manual_seed(0)
        found = [mean_gradient(noisy, images, labels, cross_entropy, draws) for _ in range(30)]
        return torch.stack(found)

    spread = [gradients(draws).var(0).mean().item() for draws in (1, 16)]
    assert spread[1] < spread[0] / 8  # 1/16 in expectation


def test_the_pooled_gradient_is_that_of_the_mean_probability(net, images, labels):
    """With members as draws the whole expression can be differentiated at once."""
    noisy = si.NoisyModel(net, weights=si.CNI(rank=1)).eval()
    torch.manual_seed(0)
    found = pooled_gradient(noisy, images, labels, cross_entropy, draws=5)
    torch.manual_seed(0)
    seeds = torch.randint(2**62, (5,)).tolist()
    points = images.clone().requires_grad_()
    probabilities = []
    for seed in seeds:
        with si.isolated_rng(seed):
            probabilities.append(noisy(points).softmax(1).gather(1, labels[:, None]))
    loss = -torch.cat(probabilities, 1).mean(1).log().sum()
    (truth,) = torch.autograd.grad(loss, points)
    assert torch.allclose(found, truth, atol=1e-5)
    mean = mean_gradient(noisy, images, labels, cross_entropy, 5)
    assert not torch.allclose(found, mean, atol=1e-3)  # EPGD's is another one


def test_one_draw_pooled_is_pgd(net, images, labels):
    one, two = (
        si.pgd(net, images, labels, si.Linf(RADIUS), gradient=name, random_start=False)
        for name in ("mean", "pooled")
    )
    assert torch.allclose(one, two, atol=1e-6)


def test_restarts_keep_the_best_start():
    class Two(nn.Module):
        """Only starts to the right of 0.5 find the way up."""

        def forward(self, images):
            x = images.flatten(1).sum(1) - 0.5
            return torch.stack([torch.zeros_like(x), torch.relu(x) * 100], 1)

    image, label = torch.full((64, 1, 1, 1), 0.5), torch.zeros(64, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    run = partial(si.pgd, Two(), image, label, si.Linf(0.1), generator=generator)
    once, often = (Two()(run(restarts=count))[:, 1] > 0 for count in (1, 8))
    assert 0.2 < once.float().mean() < 0.8
    assert often.float().mean() > 0.95  # 1 - 2^-8 in expectation


@pytest.mark.parametrize("name", si.OBJECTIVES)
def test_every_objective_grows_as_the_label_loses(name):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4, 1)
    value = si.OBJECTIVES[name](logits, torch.arange(4))
    assert value.shape == (4,)
    assert (value.diff() > 0).all()
    shifted = si.OBJECTIVES[name](logits + 3, torch.arange(4))
    assert torch.allclose(value, shifted, atol=1e-5)


def test_dlr_ignores_the_scale_and_needs_three_classes():
    logits = torch.randn(5, 4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    dlr = si.OBJECTIVES["dlr"]
    assert torch.allclose(dlr(logits, labels), dlr(1000 * logits, labels), atol=1e-4)
    with pytest.raises(ValueError, match="3 classes"):
        dlr(torch.randn(2, 2), torch.tensor([0, 1]))


def test_an_objective_may_be_a_function(half_space, middle, sides):
    moved = si.pgd(half_space, middle, sides, si.Linf(RADIUS), objective=lambda z, y: -margin(z, y))
    shift = half_space.distance(moved) - half_space.distance(middle)
    assert (shift * (1 - 2 * sides) < 0).all()  # it makes the images safer, as asked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"draws": 0}, "draws"),
        ({"restarts": -1}, "restarts"),
        ({"step_size": -0.1}, "step_size"),
        ({"objective": "loss"}, "cross_entropy"),
        ({"gradient": "median"}, "mean, pooled"),
        ({"images": torch.full((20, 1, 4, 4), 2.0)}, r"\[0, 1\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        ({"labels": torch.zeros(20)}, "int64"),
    ],
)
def test_bad_attacks_are_refused(change, said, middle, sides):
    given = {"images": middle, "labels": sides, "ball": si.Linf(RADIUS), **change}
    with pytest.raises(si.InputError, match=said):
        si.pgd(HalfSpace(), **given)


def test_attacks_leave_modes_alone(net, images, labels):
    net.append(nn.Dropout(0.5)).eval()[-1].train()  # left on: the model's own randomness
    modes = [part.training for part in net.modules()]
    si.pgd(net, images, labels, si.Linf(RADIUS), steps=1)
    assert [part.training for part in net.modules()] == modes
