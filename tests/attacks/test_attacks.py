"""What every attack in ``ATTACKS`` promises."""

import inspect
import typing
from functools import partial

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.attacks.conftest import RADIUS

ONLY = {"square": "linf", "ddn": "l2"}
QUICK = {
    "standard": {"budget": "quick"},
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
    adversarial = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert adversarial.shape == images.shape
    assert adversarial.dtype == images.dtype
    assert (ball.distance(adversarial, images) <= ball.radius + 1e-5).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad
    assert torch.equal(images, before)
    assert all(torch.equal(kept[k], v) for k, v in noisy.state_dict().items())
    assert all(p.grad is None for p in noisy.parameters())
    again = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adversarial, again)  # a generator fixes the start and the noise
    other = attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(adversarial, other) or name in ("cw", "ddn")  # which may converge
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    attack(noisy, images, labels, ball, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)  # the global generator is left alone


BY_GRADIENT = {
    "apgd": {"steps": 40},
    "epgd": {"steps": 20},
    "fgsm": {},
    "high_k": {},
    "multitargeted": {"steps": 40, "step_size": RADIUS / 4},
    "pgd": {"steps": 20},
    "smoothadv": {"steps": 20},
}


@pytest.mark.parametrize("ball", si.BALLS)
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_every_attack_by_gradient_reaches_the_optimum_of_a_half_space(
    name, ball, half_space, middle, sides
):
    """The best step shifts d by radius times the dual norm; 99 % of it must be reached."""
    ball = si.BALLS[ball](RADIUS)
    best = RADIUS * half_space.normal.norm(p=1 if isinstance(ball, si.Linf) else 2)
    # So much noise that an image seldom leaves early, all draws wrong.
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(1.0)).eval()
    adversarial = si.ATTACKS[name](noisy, middle, sides, ball, **BY_GRADIENT[name])
    shift = half_space.distance(adversarial) - half_space.distance(middle)
    assert (shift * (1 - 2 * sides) >= 0.99 * best).all()


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_attacks_leave_modes_alone(name, ball, net, images, labels):
    """Dropout left on in eval mode is the model's own randomness, during the attack too."""
    net.append(nn.Dropout(0.5)).eval()[-1].train()
    modes, seen = [part.training for part in net.modules()], []
    net[-1].register_forward_hook(lambda part, *_: seen.append(part.training))
    quick(name, net)(net, images, labels, si.BALLS[ball](RADIUS))
    assert seen
    assert all(seen)
    assert [part.training for part in net.modules()] == modes


@pytest.mark.parametrize("name", sorted(set(si.ATTACKS) - {"transfer"}))
def test_wrong_options_are_refused_before_there_are_images(name):
    """A sweep asks every attack so, with no images, before it begins."""
    model = si.NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), si.Gaussian(0.1)).eval()
    images, labels = torch.rand(0, 3, 2, 2), torch.zeros(0, dtype=torch.int64)
    wrong = {int: -1, float: -1.0, str: "nonsense"}
    tried = 0
    for option, each in inspect.signature(si.ATTACKS[name]).parameters.items():
        kinds = typing.get_args(each.annotation) or (each.annotation,)
        if each.kind is not each.KEYWORD_ONLY or not (kinds := [k for k in kinds if k in wrong]):
            continue
        with pytest.raises(si.InputError):
            si.ATTACKS[name](model, images, labels, si.Linf(0.1), **{option: wrong[kinds[0]]})
        tried += 1
    assert tried > 0
