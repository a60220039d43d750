from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.training.crafting import craft
from smoothinfer.training.losses import adversarial
from tests.conftest import small_net

ATTACK = partial(si.pgd, ball=si.Linf(0.1), steps=2)


class Linear(nn.Module):
    """A linear network, so that the losses can be written down."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize("name", si.LOSSES)
def test_every_loss_is_a_scalar_that_trains(name, images, labels):
    noise = si.CNI(rank=1, diagonal=1e-4, factor=1e-3)
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.05), weights=noise).train()
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.02 if name == "macer" else 0.1)
    values = []
    torch.manual_seed(0)
    options = {"radius": 0.1, "steps": 2} if name == "smooth_adversarial" else {}
    for _ in range(100):
        value = si.LOSSES[name](noisy, images, labels, attack=ATTACK, **options)
        assert value.shape == ()
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in noisy.parameters())
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_the_adversarial_loss_is_equation_6(images, labels):
    net = small_net().eval()  # without noise and batch statistics both terms can be computed
    flipped = images.flip(3)
    clean, hard = (F.cross_entropy(net(x), labels) for x in (images, flipped))
    for w in (0.0, 0.3, 1.0):
        value = adversarial(net, images, labels, lambda *_: flipped, w=w)
        assert value.item() == pytest.approx(((1 - w) * clean + w * hard).item(), rel=1e-5)
    with pytest.raises(si.InputError, match="w must"):
        adversarial(net, images, labels, ATTACK, w=1.5)
    with pytest.raises(si.InputError, match="attack"):
        adversarial(net, images, labels)


def test_attacks_in_training_run_in_eval_mode_with_the_noise_on_and_leave_no_trace(images, labels):
    noisy = si.NoisyModel(small_net(), weights=si.CNI(rank=1)).train()
    noisy.module[1][1].eval()
    modes = [part.training for part in noisy.modules()]
    before = {k: v.clone() for k, v in noisy.state_dict().items()}
    seen = {}

    def attack(model, x, y):
        seen["training"] = any(part.training for part in model.modules())
        seen["noise"] = not torch.equal(model(x), model(x))
        seen["grad"] = any(p.requires_grad for p in model.parameters())
        return x

    craft(attack, noisy, images, labels)
    assert seen == {"training": False, "noise": True, "grad": False}
    assert [part.training for part in noisy.modules()] == modes
    assert all(p.requires_grad for p in noisy.parameters())
    assert all(torch.equal(before[k], v) for k, v in noisy.state_dict().items())


def test_trades_and_mart_are_their_formulas(images, labels):
    torch.manual_seed(0)
    net, brighter = Linear(), (images + 0.1).clamp(0, 1)
    attack = lambda *_: brighter  # noqa: E731
    p, q = net(images).softmax(1), net(brighter).softmax(1)
    kl = (p * (p / q).log()).sum(1)
    truth = F.cross_entropy(net(images), labels) + 6 * kl.mean()
    assert torch.allclose(si.LOSSES["trades"](net, images, labels, attack), truth, atol=1e-5)
    right = q.gather(1, labels[:, None]).squeeze(1)
    runner_up = q.scatter(1, labels[:, None], 0).amax(1)
    boosted = (-right.log() - (1.0001 - runner_up).log()).mean()
    doubt = 1.0000001 - p.gather(1, labels[:, None]).squeeze(1)
    truth = boosted + 5 * (kl * doubt).mean()
    assert torch.allclose(si.LOSSES["mart"](net, images, labels, attack), truth, atol=1e-5)


def test_the_divergence_of_a_noisy_network_does_not_vanish(images, labels):
    """Two draws differ, so unchanged images pay too; without noise they do not."""
    unchanged = lambda model, x, y: x  # noqa: E731
    torch.manual_seed(0)
    net = Linear()
    noisy = si.NoisyModel(net, weights=si.PNI(alpha=0.5))
    plain = F.cross_entropy(net(images), labels)
    assert torch.allclose(si.LOSSES["trades"](net, images, labels, unchanged), plain, atol=1e-6)
    apart = si.LOSSES["trades"](noisy, images, labels, unchanged, beta=6.0)
    alone = si.LOSSES["trades"](noisy, images, labels, unchanged, beta=0.0)
    assert (apart - alone).item() > 0


@pytest.mark.parametrize("name", ["trades", "mart"])
@pytest.mark.parametrize(
    ("change", "message"), [({"attack": None}, "needs an attack"), ({"beta": -1.0}, "beta")]
)
def test_bad_losses_are_refused(name, change, message, images, labels):
    options = {"attack": ATTACK, **change}
    with pytest.raises(si.InputError, match=message):
        si.LOSSES[name](small_net(), images, labels, **options)
