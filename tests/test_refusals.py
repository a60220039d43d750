"""What is refused at the public entries, and what the message says."""

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from tests.conftest import small_net

LINF = si.Linf(8 / 255)


class Idle(nn.Module):
    """Has a layer that its forward never calls, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.twin = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.twin.weight = self.used.weight

    def forward(self, images):
        return self.twin(self.used(images.flatten(1)))


NOISE = [
    (lambda net: si.NoisyModel(net, inputs=0.06), "inputs must be a Noise, not 0.06"),
    (lambda net: si.NoisyModel(net, weights=si.CNI), "weights must be a Noise, not the class CNI"),
    (lambda net: si.NoisyModel(net, weights={"*": "cni"}), "weights must be a Noise"),
    (lambda net: si.NoisyModel("resnet20"), "module must be a Module"),
    (
        lambda net: si.NoisyModel(Idle(), activations=si.PNI(), shape=(1, 2, 2)),
        "layer 'idle' never runs",
    ),
    (
        lambda net: si.NoisyModel(
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))), weights=si.PNI()
        ),
        "layer '0' has no weight of its own",
    ),
    (lambda net: si.NoisyModel(net, inputs=si.PNI("element")), r"give shape=\(C, H, W\)"),
    (lambda net: si.NoisyModel(net, inputs=si.PNI("channel")), r"give shape=\(C, H, W\)"),
]


@pytest.mark.parametrize(("make", "said"), NOISE)
def test_what_is_no_noise_is_refused(make, said, net):
    with pytest.raises(si.InputError, match=said):
        make(net)


@pytest.mark.parametrize("radius", [8, -1, float("nan"), "8/255"])
def test_a_ball_has_a_sensible_radius(radius):
    with pytest.raises(si.InputError, match="radius"):
        si.Linf(radius)


ENTRIES = [
    (lambda net, x, y: si.pgd(net, x, y, 8 / 255), "ball must be a ball such as"),
    (lambda net, x, y: si.pgd(net, x, y, si.Linf), "ball must be a ball such as"),
    (lambda net, x, y: si.pgd(net, x, y + 1, LINF), "the model has 3 classes"),
    (lambda net, x, y: si.pgd(net, x, y + 1, LINF, gradient="pooled"), "has 3 classes"),
    (lambda net, x, y: si.pgd(net, x, y.numpy(), LINF), "labels must be a Tensor"),
    (lambda net, x, y: si.pgd(net.train(), x, y, LINF), r"call model.eval\(\)"),
    (lambda net, x, y: si.evaluate(net, x), r"data must be \(images, labels\)"),
    (lambda net, x, y: si.evaluate(net, (x[:0], y[:0])), "no images"),
    (lambda net, x, y: si.evaluate(net, (x.numpy(), y)), "images must be a torch.Tensor"),
    (lambda net, x, y: si.evaluate(net, (x, y.numpy())), "labels must be a Tensor"),
    (lambda net, x, y: si.evaluate(net, (x, y), ball=0.03), "ball must be a ball"),
    (lambda net, x, y: si.SmoothedClassifier(net).predict(x[:0]), "no images"),
    (lambda net, x, y: si.SmoothedClassifier(net).predict(np.zeros(3)), "must be a torch.Tensor"),
]


@pytest.mark.parametrize(("call", "said"), ENTRIES)
def test_bad_input_is_refused_before_any_work(call, said, net, images, labels):
    with pytest.raises(si.InputError, match=said):
        call(net, images, labels)


def test_one_rule_and_one_number_of_samples_need_no_list(net, images, labels):
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1))
    smooth = si.SmoothedClassifier(noisy, samples=4)
    rows = si.evaluate(smooth, (images, labels), rules="soft", samples=2)
    assert set(rows["rule"].to_pylist()) == {"soft"}
    assert set(rows["samples"].to_pylist()) == {2}


def test_a_weight_of_two_layers_has_one_noise():
    noisy = si.NoisyModel(Idle(), weights={"used": si.PNI(), "twin": si.PNI()}).eval()
    assert list(noisy.strengths()) == ["used.weight"]
    image = torch.rand(1, 1, 2, 2)
    assert not torch.equal(noisy(image), noisy(image))
    member = noisy.member(0, 0)
    assert torch.equal(member(image), member(image))


def test_an_attack_on_a_smoothed_classifier_can_be_repeated(images, labels):
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.2)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=3)
    one, two = (
        si.pgd(smooth, images, labels, LINF, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(one, two)
    assert len({tuple(smooth.predict(images).scores.flatten().tolist()) for _ in range(30)}) > 1


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"loss": "adversarial(attack='pgd')"}, "loss.attack would be overridden"),
        ({"attack": {"name": "pgd", "ball": 1}}, "attack.ball would be overridden"),
    ],
)
def test_an_option_that_would_be_overridden_is_refused(recipe, said):
    with pytest.raises(si.InputError, match=said):
        recipe_from(recipe).build_loss()


@pytest.mark.parametrize("change", [{"lr": -1.0}, {"clip": -0.5}, {"momentum": 1.0}, {"crop": -4}])
def test_numbers_of_a_training_have_ranges(change):
    with pytest.raises(si.InputError, match=next(iter(change))):
        recipe_from(change).training()
