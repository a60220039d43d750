from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.carlini_wagner_linf import carlini_linf
from smoothinfer.attacks.gradients import mean_gradient, mean_objective, pooled_gradient
from smoothinfer.attacks.losses import cross_entropy, margin
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


ONLY = {"square": "linf", "ddn": "l2"}
QUICK = {
    "square": {"queries": 20, "draws": 3},
    "nattack": {"steps": 3, "population": 8},
    "multitargeted": {"steps": 3},
    "apgd": {"steps": 6, "draws": 3},
    "apgd_dlr": {"steps": 6, "draws": 3},
    "high_k": {"steps": 9},
    "cw": {"steps": 5, "searches": 2, "samples": 3, "votes": 4},
    "ddn": {"steps": 8, "samples": 3, "votes": 4},
}
CASES = [(name, ball) for name in si.ATTACKS for ball in si.BALLS if ONLY.get(name, ball) == ball]


def quick(name, source):
    """The attack, with little work and with the source that transfer needs."""
    options = QUICK.get(name, {}) | ({"source": source} if name == "transfer" else {})
    return partial(si.ATTACKS[name], **options)


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_every_attack_keeps_its_promises(name, ball, net, images, labels):
    attack, ball = quick(name, net), si.BALLS[ball](RADIUS if ball == "linf" else 1.0)
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1), weights=si.CNI(rank=1)).eval()
    before, kept = images.clone(), {k: v.clone() for k, v in noisy.state_dict().items()}
    moved = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.dtype == images.dtype
    assert (ball.distance(moved, images) <= ball.radius + 1e-5).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad
    assert torch.equal(images, before)
    assert all(torch.equal(kept[k], v) for k, v in noisy.state_dict().items())
    assert all(p.grad is None for p in noisy.parameters())
    again = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)  # a generator fixes the start and the noise
    other = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(moved, other) or name in ("cw", "ddn")  # which may converge
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)  # the global generator is left alone


CLIMBS = {
    "apgd": {"steps": 40},
    "epgd": {"steps": 20},
    "fgsm": {},
    "high_k": {},
    "multitargeted": {"steps": 40, "step_size": RADIUS / 4},
    "pgd": {"steps": 20},
    "smoothadv": {"steps": 20},
}


@pytest.mark.parametrize("ball", si.BALLS)
@pytest.mark.parametrize("name", CLIMBS)
def test_every_climb_reaches_the_optimum_of_a_half_space(name, ball, half_space, middle, sides):
    """The best step moves d by radius times the dual norm; 99 % of it must be reached."""
    ball = si.BALLS[ball](RADIUS)
    best = RADIUS * half_space.normal.norm(p=1 if isinstance(ball, si.Linf) else 2)
    # So much noise that an image seldom leaves early, all draws wrong.
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(1.0)).eval()
    moved = si.ATTACKS[name](noisy, middle, sides, ball, **CLIMBS[name])
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


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_attacks_leave_modes_alone(name, ball, net, images, labels):
    """Dropout left on in eval mode is the model's own randomness, during the attack too."""
    net.append(nn.Dropout(0.5)).eval()[-1].train()
    modes, asked = [part.training for part in net.modules()], []
    net[-1].register_forward_hook(lambda part, *_: asked.append(part.training))
    quick(name, net)(net, images, labels, si.BALLS[ball](RADIUS))
    assert asked
    assert all(asked)
    assert [part.training for part in net.modules()] == modes


@pytest.mark.parametrize("name", ["kl_pgd", "transfer"])
def test_options_that_are_passed_on_are_checked(name, net, images, labels):
    attack = quick(name, net)
    with pytest.raises(si.InputError, match=r"unknown option 'stepz'.*did you mean 'steps'"):
        attack(net, images, labels, si.Linf(RADIUS), stepz=3)


def test_a_target_that_the_model_does_not_know_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="but the model has"):
        si.pgd(net, images, labels, si.Linf(RADIUS), gradient="queries", targets=12)


def test_estimates_from_queries_are_not_rounded(net, images, labels):
    """Differences of 0.001 would drown in bfloat16, which autocast asks for around attacks."""
    found = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found.append(si.GRADIENTS["queries"](net, images, labels, margin, 1))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [name for name in si.GRADIENTS if name != "queries"])
def test_every_gradient_reaches_the_optimum_of_a_half_space(name, half_space, middle, sides):
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.3)).eval()
    moved = si.pgd(noisy, middle, sides, si.L2(RADIUS), steps=20, draws=8, gradient=name)
    shift = (half_space.distance(moved) - half_space.distance(middle)) * (1 - 2 * sides)
    assert (shift >= 0.99 * RADIUS).all()


def test_queries_estimate_the_gradient(half_space, middle, sides):
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.3)).eval()
    torch.manual_seed(0)
    found = si.GRADIENTS["queries"](noisy, middle, sides, margin, 8, queries=512)
    truth = half_space.normal.view(1, 1, 4, 4) * (1 - 2 * sides.view(-1, 1, 1, 1))
    assert (F.cosine_similarity(found.flatten(1), truth.flatten(1)) > 0.95).all()


def turning(world, images, sides, found):
    """Where the vote turns is the plane itself: how far past it the points are, relative."""
    distance = world.distance(images).abs()
    passed = (found - images).flatten(1).norm(dim=1)
    return passed / distance


def well_inside(world):
    """Images 0.15 to 0.45 away from the plane, in L2."""
    torch.manual_seed(0)
    offsets = torch.rand(40) * 0.3 + 0.15
    normal = world.normal.detach().view(1, 1, 4, 4)
    noise = torch.rand(40, 1, 4, 4) * 0.1
    images = 0.5 + noise - world.distance(0.5 + noise).view(-1, 1, 1, 1) * normal
    images = (images + offsets.view(-1, 1, 1, 1) * normal).detach()
    return images, torch.ones(40, dtype=torch.int64)


@pytest.mark.parametrize("name", ["ddn", "cw"])
def test_minimal_norms_of_a_random_model_end_where_the_vote_turns(name, half_space):
    """Within 5 % of the true distance; attacked naively, they stop on a lucky draw."""
    images, sides = well_inside(half_space)
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.1)).eval()
    options = {"ddn": {"steps": 50}, "cw": {"steps": 60, "searches": 4}}[name] | {"votes": 1024}
    found = si.ATTACKS[name](noisy, images, sides, si.L2(2.0), **options)
    ratio = turning(half_space, images, sides, found).detach()
    assert float((ratio - 1).abs().median()) < 0.05
    assert float((ratio - 1).abs().mean()) < 0.05
    assert (ratio > 0.99).all()  # nor is any short of the plane, where the vote still stands
    import foolbox

    naive = {"ddn": foolbox.attacks.DDNAttack(steps=50)}.get(
        name, foolbox.attacks.L2CarliniWagnerAttack(steps=100, binary_search_steps=5)
    )
    wrapped = foolbox.PyTorchModel(noisy, bounds=(0, 1))
    torch.manual_seed(1)
    lucky = turning(half_space, images, sides, naive(wrapped, images, sides, epsilons=None)[1])
    assert float((lucky < 0.95).float().mean()) > 0.3  # many of its points have not turned the vote


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_the_box_of_carlini_and_wagner_shrinks_to_the_plane(sigma, half_space):
    """In L-infinity the plane is |distance| / |normal|_1 away."""
    images, sides = well_inside(half_space)
    world = si.NoisyModel(half_space, inputs=si.Gaussian(sigma)).eval() if sigma else half_space
    true = half_space.distance(images).abs() / half_space.normal.abs().sum()
    options = {"steps": 30, "searches": 15}
    found = si.cw(world, images, sides, si.Linf(0.3), samples=16, votes=1024, **options)
    ratio = ((found - images).abs().flatten(1).amax(1) / true).detach()
    assert float((ratio - 1).abs().median()) < 0.05
    assert float((ratio - 1).abs().mean()) < 0.05
    if sigma:  # naively, every step under another draw, it stops on a lucky one
        goal = {"rate": 0.1, "confidence": 0.0, "initial": 1e-3}
        found = carlini_linf(world, images, sides, 0.3, **options, **goal)
        lucky = ((found - images).abs().flatten(1).amax(1) / true).detach()
        assert float((lucky < 0.95).float().mean()) > 0.3


def test_the_box_of_carlini_and_wagner_finds_what_pgd_finds(net, images, labels):
    ball = si.Linf(0.05)
    strong = si.pgd(net, images, labels, ball, steps=100, objective="margin")
    found = si.cw(net, images, labels, ball, steps=40, searches=6)
    moved = ball.distance(found, images) > 0
    fooled = margin(net(found), labels) > 0
    assert fooled.sum() >= (margin(net(strong), labels) > 0).sum()
    right = margin(net(images), labels) < 0
    assert torch.equal(moved & right, fooled & right)


def test_minimal_norms_keep_to_the_budget(half_space, middle, sides):
    distance = half_space.distance(middle).abs().detach()
    ball = si.L2(float(distance.median()))
    found = si.ddn(half_space, middle, sides, ball, steps=200)
    moved = ball.distance(found, middle) > 0
    assert torch.equal(moved[distance > 1.01 * ball.radius].unique(), torch.tensor([False]))
    assert moved[distance < 0.9 * ball.radius].all()


def test_an_auto_step_size_is_not_led_by_luck(half_space, middle, sides):
    """Frozen draws are one deterministic model: the same climb as on that model."""
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.5)).eval()
    still = si.frozen(noisy, seed=1, samples=4)
    one, two = (
        si.apgd(still, middle, sides, si.Linf(RADIUS), steps=10, generator=generator)
        for generator in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    )
    assert torch.equal(one, two)
    assert torch.equal(still(middle), still(middle))
    assert torch.allclose(still(middle)[3:4], still(middle[3:4]), atol=1e-5)  # whatever its company


@pytest.mark.parametrize("name", ["square", "nattack"])
def test_attacks_by_queries_cross_the_plane(name, half_space, middle, sides):
    """Where the best step would carry an image well past the plane."""
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.05)).eval()
    options = {
        "square": {"queries": 300},
        "nattack": {"steps": 40, "population": 100, "rate": 0.05},
    }
    moved = si.ATTACKS[name](noisy, middle, sides, si.Linf(RADIUS), **options[name])
    reach = RADIUS * half_space.normal.norm(p=1)
    easy = half_space.distance(middle).abs() < 0.6 * reach
    crossed = (half_space.distance(moved) > 0).long() != sides
    assert easy.sum() >= 5
    assert crossed[easy].float().mean() >= 0.9


def test_targets_lead_to_their_class(net, images, labels):
    targets = (labels + 1) % 3
    ball = si.Linf(0.3)
    moved = si.pgd(net, images, labels, ball, steps=40, step_size=0.05, targets=targets)
    before, after = (net(x).softmax(1).gather(1, targets[:, None]) for x in (images, moved))
    assert (after > before).all()


def test_multitargeted_is_at_least_as_strong_as_one_climb(net, images, labels):
    ball = si.Linf(0.05)
    single = si.pgd(net, images, labels, ball, steps=20, objective="margin")
    many = si.multitargeted(net, images, labels, ball, steps=20, restarts=2)
    one, all_of_them = (margin(net(moved), labels) for moved in (single, many))
    assert (all_of_them >= one - 0.05 * one.abs()).all()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("square", {"ball": si.L2(1.0)}, "within Linf only"),
        ("ddn", {"ball": si.Linf(0.1)}, "in L2"),
        ("cw", {"searches": 0}, "searches must be at least 1"),
        ("cw", {"rate": 0.0}, "rate 0.0"),
        ("transfer", {}, "source must be a Module"),
        ("apgd", {"gradient": "hard"}, "unknown gradient 'hard'"),
        ("apgd", {"steps": 0}, "steps must be at least 1"),
        ("multitargeted", {"targets": 0}, "targets must be at least 1"),
        ("nattack", {"population": 1}, "population"),
        ("square", {"share": 2.0}, "share"),
    ],
)
def test_bad_options_are_refused(name, options, said, net, images, labels):
    given = {"ball": si.Linf(0.1), **options}
    with pytest.raises(si.InputError, match=said):
        si.ATTACKS[name](net, images, labels, **given)
