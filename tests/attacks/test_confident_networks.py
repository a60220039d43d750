"""Confident networks: a gradient attack reaches the closed form however far the label leads."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.losses import cross_entropy

LEADS = (1.0, 17.0, 40.0, 80.0, 400.0)
SHAPE = (3, 4, 4)


class Plane(nn.Module):
    """Two classes; the first leads by ``lead`` logits at grey, less along a random direction."""

    def __init__(self, lead: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        weights = 0.05 * torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
        self.linear = nn.Linear(48, 2).to(dtype)
        with torch.no_grad():
            self.linear.weight.copy_(weights)
            self.linear.bias.copy_(torch.tensor([lead, 0.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1) - 0.5)

    @property
    def normal(self) -> torch.Tensor:
        return (self.linear.weight[0] - self.linear.weight[1]).detach().float()


def share_of_best(model: Plane, attack: str, ball: si.Linf | si.L2, **options: object) -> float:
    """By how much the attack lowers the lead, as a share of the most that the ball allows."""
    images = torch.full((4, *SHAPE), 0.5)
    labels = torch.zeros(4, dtype=torch.long)
    run = si.ATTACKS[attack]
    found = run(model, images, labels, ball, generator=torch.Generator().manual_seed(0), **options)
    norm = model.normal.norm(p=1 if isinstance(ball, si.Linf) else 2)
    moved = -(found - images).flatten(1) @ model.normal
    return float((moved / (ball.radius * norm)).min())


FIRST_ORDER = {
    "fgsm": {},
    "pgd": {"steps": 20},
    "epgd": {"steps": 20, "draws": 2},
    "smoothadv": {"steps": 20, "draws": 2},
    "apgd": {"steps": 40},
    "multitargeted": {"steps": 60},
}


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("attack", FIRST_ORDER)
@pytest.mark.parametrize("ball", [si.Linf(0.03), si.L2(0.3)], ids=["linf", "l2"])
def test_every_gradient_attack_reaches_the_closed_form(attack, ball, lead):
    # Its steps sum to 2.5 radii, and in L2 some of the random start remains.
    least = 0.95 if attack == "multitargeted" and isinstance(ball, si.L2) else 0.99
    assert share_of_best(Plane(lead).eval(), attack, ball, **FIRST_ORDER[attack]) > least


@pytest.mark.parametrize("gradient", ["mean", "pooled", "vote", "queries"])
@pytest.mark.parametrize("lead", [17.0, 80.0])
def test_every_gradient_of_pgd_does(gradient, lead):
    options = {"gradient": gradient, "steps": 20, "draws": 2}
    least = 0.8 if gradient == "queries" else 0.99  # those are estimated
    assert share_of_best(Plane(lead).eval(), "pgd", si.Linf(0.03), **options) > least


@pytest.mark.parametrize("lead", [1.0, 5.0, 17.0, 80.0, 400.0])
def test_ddn_goes_the_shortest_way(lead):
    model = Plane(lead).eval()
    images, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        # Twice as steep, so that the way to the plane, lead / ||w||, lies within [0, 1].
        scale = lead / (0.4 * float(model.normal.norm()))
        model.linear.weight.mul_(scale)
    nearest = lead / float(model.normal.norm())
    found = si.ddn(model, images, labels, si.L2(2.0), steps=200)
    distance = si.L2(2.0).distance(found, images)
    assert (model(found).argmax(1) == 1).all()
    assert (distance < 1.05 * nearest).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("attack", "ball"), [("ddn", si.L2(2.0)), ("cw", si.L2(2.0))])
def test_the_shortest_way_is_found_in_every_format(attack, ball, dtype):
    """A step of 1/2048 of a pixel is lost in bfloat16: points are kept in float32."""
    lead = 1.0
    model = Plane(lead, dtype).eval()
    with torch.no_grad():
        model.linear.weight.mul_(lead / (0.4 * float(model.normal.norm())))
    nearest = lead / float(model.normal.norm())
    images, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2, dtype=torch.long)
    found = si.ATTACKS[attack](model, images, labels, ball, steps=200)
    distance = ball.distance(found, images)
    rounding = 0.1 if dtype == torch.bfloat16 else 0.05  # of the network's own logits
    assert (distance > 0).all()
    assert (distance < (1 + rounding) * nearest).all()


def test_the_cross_entropy_is_exact_at_every_lead():
    for lead in (-700.0, -20.0, 0.0, 20.0, 80.0, 600.0):
        logits = torch.tensor([[lead, 0.0]], dtype=torch.float64, requires_grad=True)
        value = cross_entropy(logits, torch.tensor([0]))
        expected = torch.tensor(-lead, dtype=torch.float64)
        expected = expected if lead < -30 else expected.exp().log1p()
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        (slope,) = torch.autograd.grad(value.sum(), logits)
        assert slope[0, 1].item() == pytest.approx(1 / (1 + torch.tensor(lead).double().exp()))
        assert slope[0, 0].item() == -slope[0, 1].item()


def test_a_loss_of_the_user_gets_float32():
    seen = []

    def loss(logits, labels):
        seen.append(logits.dtype)
        weight = torch.ones(2)
        return nn.functional.cross_entropy(logits, labels, weight=weight, reduction="none")

    images, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2, dtype=torch.long)
    si.pgd(Plane(1.0).eval(), images, labels, si.Linf(0.1), steps=2, loss=loss)
    si.apgd(Plane(1.0).eval(), images, labels, si.Linf(0.1), steps=2, loss=loss)
    assert set(seen) == {torch.float32}
