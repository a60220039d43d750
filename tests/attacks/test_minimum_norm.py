"""The nearest adversarial examples by C&W and DDN."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.attacks.conftest import well_inside
from tests.conftest import small_net


def share_of_the_way(world, images, found):
    """How far the points went, relative to the distance of the plane, where the vote turns."""
    distance = world.distance(images).abs()
    return ((found - images).flatten(1).norm(dim=1) / distance).detach()


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_minimal_norms_of_a_random_model_end_where_the_vote_turns(name, half_space):
    """Within 5 % of the true distance; attacked naively, they stop on a lucky draw."""
    images, labels = well_inside(half_space)
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.1)).eval()
    options = {"ddn": {"steps": 50}, "cw": {"steps": 60, "searches": 4}}[name] | {"votes": 1024}
    found = si.ATTACKS[name](noisy, images, labels, si.L2(2.0), **options)
    share = share_of_the_way(half_space, images, found)
    assert float((share - 1).abs().median()) < 0.05
    assert float((share - 1).abs().mean()) < 0.05
    assert (share > 0.99).all()  # nor is any short of the plane, where the vote still stands
    import foolbox

    naive = {"ddn": foolbox.attacks.DDNAttack(steps=50)}.get(
        name, foolbox.attacks.L2CarliniWagnerAttack(steps=100, binary_search_steps=5)
    )
    wrapped = foolbox.PyTorchModel(noisy, bounds=(0, 1))
    torch.manual_seed(1)
    _, points, _ = naive(wrapped, images, labels, epsilons=None)
    lucky = share_of_the_way(half_space, images, points)
    assert float((lucky < 0.95).float().mean()) > 0.3  # many of its points have not turned the vote


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_the_nearest_example_loses_the_vote_and_not_by_chance(name, images):
    """Where the label has fewer than half of the draws it may still win: that is no success."""
    torch.manual_seed(0)
    net = small_net(classes=10).eval()
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=1.0)
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    smooth = si.SmoothedClassifier(noisy, 512, seed=1)
    labels = smooth.predict(images).labels
    options = {"ddn": {"steps": 30}, "cw": {"steps": 30, "searches": 3}}[name]
    found = si.ATTACKS[name](noisy, images, labels, si.L2(10.0), samples=8, **options)
    changed = (found - images).flatten(1).norm(dim=1) > 0
    assert changed.any()
    lost = smooth.predict(found[changed]).labels != labels[changed]
    assert lost.sum() >= len(lost) - 1  # two standard errors leave a little to chance


def test_minimal_norms_keep_to_the_budget(half_space, middle, sides):
    distance = half_space.distance(middle).abs().detach()
    ball = si.L2(float(distance.median()))
    found = si.ddn(half_space, middle, sides, ball, steps=200)
    changed = ball.distance(found, middle) > 0
    assert changed[distance > 1.01 * ball.radius].unique().tolist() == [False]
    assert changed[distance < 0.9 * ball.radius].all()


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_no_images_are_no_work(name, net):
    empty = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert len(si.ATTACKS[name](net, *empty, si.L2(1.0))) == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ddn", {"ball": si.Linf(0.1)}, "in L2"),
        ("cw", {"searches": 0}, "searches must be at least 1"),
        ("cw", {"rate": 0.0}, "rate 0.0"),
    ],
)
def test_bad_options_are_refused(name, options, message, net, images, labels):
    with pytest.raises(si.InputError, match=message):
        si.ATTACKS[name](net, images, labels, **{"ball": si.Linf(0.1), **options})
