"""FGSM, PGD and its relatives."""

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.losses import cross_entropy, margin
from tests.attacks.conftest import RADIUS
from tests.conftest import HalfSpace, small_net


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
    eot = EOTLoss(half_space, cross_entropy)
    losses = []
    for steps in range(1, 8):
        points = si.pgd(half_space, middle, sides, si.Linf(RADIUS), steps=steps, random_start=False)
        losses.append(eot.evaluate(points, sides, fresh_seeds(1)).value.mean())
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


def test_one_draw_pooled_is_pgd(net, images, labels):
    one, two = (
        si.pgd(net, images, labels, si.Linf(RADIUS), gradient=name, random_start=False)
        for name in ("mean", "pooled")
    )
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in si.GRADIENTS if name != "queries"])
def test_every_gradient_reaches_the_optimum_of_a_half_space(name, half_space, middle, sides):
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.3)).eval()
    points = si.pgd(noisy, middle, sides, si.L2(RADIUS), steps=20, draws=8, gradient=name)
    shift = (half_space.distance(points) - half_space.distance(middle)) * (1 - 2 * sides)
    assert (shift >= 0.99 * RADIUS).all()


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


def test_a_loss_may_be_a_function(half_space, middle, sides):
    points = si.pgd(half_space, middle, sides, si.Linf(RADIUS), loss=lambda z, y: -margin(z, y))
    shift = half_space.distance(points) - half_space.distance(middle)
    assert (shift * (1 - 2 * sides) < 0).all()  # it makes the images safer, as asked


def test_an_attack_on_a_smoothed_classifier_can_be_repeated(images, labels):
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.2)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=3)
    one, two = (
        si.pgd(smooth, images, labels, si.Linf(8 / 255), generator=generator)
        for generator in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
    )
    assert torch.equal(one, two)
    assert len({tuple(smooth.predict(images).scores.flatten().tolist()) for _ in range(30)}) > 1


def test_targets_lead_to_their_class(net, images, labels):
    targets = (labels + 1) % 3
    ball = si.Linf(0.3)
    points = si.pgd(net, images, labels, ball, steps=40, step_size=0.05, targets=targets)
    before, after = (net(x).softmax(1).gather(1, targets[:, None]) for x in (images, points))
    assert (after > before).all()


def test_targets_are_one_class_or_many_and_have_their_own_loss(net, images, labels):
    ball = si.Linf(0.1)
    one, many = (
        si.pgd(net, images, labels, ball, targets=t, generator=torch.Generator().manual_seed(0))
        for t in (2, torch.full_like(labels, 2))
    )
    assert torch.equal(one, many)
    with pytest.raises(si.InputError, match="leave out 'margin'"):
        si.pgd(net, images, labels, ball, targets=2, loss="margin")


def test_a_target_that_the_model_does_not_know_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="but the model has"):
        si.pgd(net, images, labels, si.Linf(RADIUS), gradient="queries", targets=12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"draws": 0}, "draws"),
        ({"restarts": -1}, "restarts"),
        ({"step_size": -0.1}, "step_size"),
        ({"loss": "loss"}, "cross_entropy"),
        ({"gradient": "median"}, "mean, pooled"),
        ({"images": torch.full((20, 1, 4, 4), 2.0)}, r"\[0, 1\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        ({"labels": torch.zeros(20)}, "int64"),
        ({"labels": torch.zeros(20).numpy()}, "labels must be a Tensor"),
        ({"labels": torch.full((20,), 2)}, "the model has 2 classes"),
        ({"labels": torch.full((20,), 2), "gradient": "pooled"}, "the model has 2 classes"),
        ({"ball": 8 / 255}, "ball must be a ball such as"),
        ({"ball": si.Linf}, "ball must be a ball such as"),
    ],
)
def test_bad_arguments_are_refused(change, message, middle, sides):
    given = {"images": middle, "labels": sides, "ball": si.Linf(RADIUS), **change}
    with pytest.raises(si.InputError, match=message):
        si.pgd(HalfSpace(), **given)


def test_a_model_in_training_mode_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match=r"call model.eval\(\)"):
        si.pgd(net.train(), images, labels, si.Linf(RADIUS))


def test_kl_pgd_raises_the_divergence_from_a_start_close_by(images, labels):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    points = si.ATTACKS["kl_pgd"](net, images, labels, si.Linf(0.1), steps=10, step_size=0.02)
    p, q = net(images).softmax(1), net(points).softmax(1)
    assert ((p * (p / q).log()).sum(1) > 1e-3).all()
    close = si.pgd(net, images, labels, si.Linf(0.1), steps=1, step_size=0.0, random_start=0.001)
    assert 0 < (close - images).abs().max() < 0.01


def test_momentum_adds_unit_gradients_of_the_steps_before(net, images, labels):
    """x + size sign(m g1 / ||g1|| + g2 / ||g2||), written out for two steps."""
    ball = si.Linf(0.3)
    points, total = images, torch.zeros_like(images)
    for step in range(2):
        leaf = points.clone().requires_grad_()
        value = F.cross_entropy(net(leaf), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(value, leaf)
        total = 0.9 * total + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        size = 0.1 * (1.0, 0.5)[step]  # a cosine of two steps
        points = (points + size * total.sign()).clamp(0, 1)
    options = {"steps": 2, "step_size": 0.1, "momentum": 0.9, "schedule": "cosine"}
    found = si.pgd(net, images, labels, ball, random_start=False, precision="fp32", **options)
    assert torch.allclose(found, points, atol=1e-6)


def test_a_search_begins_where_it_is_told_within_the_ball(net, images, labels):
    ball, start = si.Linf(0.1), images + 5.0
    none = si.pgd(net, images, labels, ball, start=start, step_size=0.0)
    assert torch.equal(none, ball.project(start, images))


@pytest.mark.parametrize(
    "options", [{"momentum": 1.5}, {"schedule": "linear"}, {"momentum": 0.5, "accumulate": True}]
)
def test_momentum_and_schedules_out_of_range_are_refused(options, net, images, labels):
    with pytest.raises(si.InputError):
        si.pgd(net, images, labels, si.Linf(0.1), **options)
