"""Whatever a caller brings: what an attack gives for plain input, or a line on what is wrong."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.numerics.balls import is_eight_bit

OPTIONS = {
    "standard": {"budget": "quick"},
    "cw": {"steps": 20, "searches": 3},
    "ddn": {"steps": 20},
    "nattack": {"steps": 3, "population": 20},
    "square": {"queries": 30},
    "high_k": {"steps": 8},
}
IN_L2 = ("cw", "ddn")
NAMES = [name for name in si.ATTACKS if name != "transfer"]


def run(name, model, images, labels, **more):
    ball = si.L2(1.0) if name in IN_L2 else si.Linf(0.1)
    options = {"generator": torch.Generator().manual_seed(0)} | OPTIONS.get(name, {}) | more
    return si.ATTACKS[name](model, images, labels, ball, **options)


@pytest.mark.parametrize("name", NAMES)
class TestEveryAttack:
    def test_keeps_no_history_and_leaves_the_images_alone(self, name, net, images, labels):
        given = images.clone().requires_grad_()
        expected = run(name, net, images, labels)
        found = run(name, net, given, labels)
        assert torch.equal(found, expected)
        assert not found.requires_grad
        assert given.grad is None
        assert torch.equal(given.detach(), images)

    def test_runs_in_inference_mode(self, name, net, images, labels):
        expected = run(name, net, images, labels)
        with torch.inference_mode():
            found = run(name, net, images * 1, labels)
        assert torch.equal(found, expected)

    def test_a_network_made_in_inference_mode_has_answers_alone(self, name, net, images, labels):
        with torch.inference_mode():
            made = copy.deepcopy(net)
        if name in ("square", "nattack"):
            assert torch.equal(run(name, made, images, labels), run(name, net, images, labels))
        else:
            with pytest.raises(si.InputError, match="has no gradient"):
                run(name, made, images, labels)

    def test_takes_images_in_float64_and_gives_them_back(self, name, net, images, labels):
        found = run(name, net, images.double(), labels)
        assert found.dtype == torch.float64
        assert torch.equal(found.float(), run(name, net, images, labels))

    def test_runs_a_network_in_half_precision_on_fine_points(self, name, net, images, labels):
        images = images.bfloat16().float()
        found = run(name, net.to(torch.bfloat16), images, labels)
        assert found.dtype == torch.float32
        moved = found != images
        assert moved.any()
        assert not torch.equal(found[moved], found[moved].bfloat16().float())

    def test_takes_a_network_that_writes_into_its_input(self, name, net, images, labels):
        class Writer(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net

            def forward(self, images):
                return self.net(images.sub_(0.5).div_(0.25).mul_(0.25).add_(0.5))

        class Reader(Writer):
            def forward(self, images):
                return self.net((images - 0.5) / 0.25 * 0.25 + 0.5)

        given = images.clone()
        found = run(name, Writer(net).eval(), given, labels)
        assert torch.equal(given, images)
        assert torch.equal(found, run(name, Reader(net).eval(), images, labels))

    def test_gives_pictures_of_eight_bits_within_the_ball(self, name, net, labels):
        pixels = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        images = pixels / 255
        found = run(name, net, images, labels, quantize=True)
        assert is_eight_bit(found).all()
        assert torch.equal(found, (found * 255).round().to(torch.uint8) / 255)
        ball = si.L2(1.0) if name in IN_L2 else si.Linf(0.1)
        assert (ball.distance(found, images) <= ball.radius + 1e-5).all()

    def test_refuses_images_of_more_bits_with_quantize(self, name, net, images, labels):
        with pytest.raises(si.InputError, match="8 bits"):
            run(name, net, images, labels, quantize=True)

    def test_goes_on_in_parts_when_memory_is_short(self, name, net, images, labels):
        class Small(nn.Module):
            def forward(self, images):
                if len(images) > 4:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
                return net(images)

        with pytest.warns(UserWarning, match="6 images are attacked in two parts"):
            found = run(name, Small().eval(), images, labels)
        assert found.shape == images.shape


def test_numbers_of_numpy_and_torch_are_numbers(net, images, labels):
    torch.manual_seed(0)
    plain = si.pgd(net, images, labels, si.Linf(0.5), steps=3, step_size=0.25, targets=1)
    torch.manual_seed(0)
    ball = si.Linf(np.float32(0.5))
    numbers = {"steps": np.int64(3), "step_size": torch.tensor(0.25), "targets": np.int64(1)}
    assert torch.equal(si.pgd(net, images, labels, ball, **numbers), plain)
    assert type(ball.radius) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((6, 1, 8, 8))}, "images must be a torch.Tensor"),
        ({"images": torch.zeros(6, 1, 8, 8, dtype=torch.uint8)}, "divide uint8 pixels by 255"),
        ({"images": torch.zeros(6, 8, 8)}, "shape"),
        ({"images": torch.full((6, 1, 8, 8), torch.nan)}, "finite"),
        ({"labels": [0, 1, 2, 0, 1, 2]}, "labels must be a"),
        ({"labels": torch.zeros(6)}, "int64"),
        ({"labels": torch.tensor([0, 1, 9, 0, 1, 2])}, "3 classes"),
        ({"ball": 0.1}, "ball must be"),
        ({"ball": si.Linf}, "ball must be"),
        ({"model": lambda images: images}, "model must be"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": 0}, "at least 1"),
        ({"steps": float("nan")}, "whole number"),
    ],
)
def test_what_an_attack_cannot_use_is_named(change, message, net, images, labels):
    given = {"model": net, "images": images, "labels": labels, "ball": si.Linf(0.1)} | change
    with pytest.raises(si.InputError, match=message) as raised:
        si.pgd(**given)
    assert "\n" not in str(raised.value)


ANSWERS = {
    "a tuple": (lambda logits: (logits, logits), "LogitsOf"),
    "a dict": (lambda logits: {"out": logits}, "LogitsOf"),
    "two axes more": (lambda logits: logits[:, :, None, None], "nn.Flatten"),
    "one axis less": (lambda logits: logits[:, 0], "must return"),
    "one row": (lambda logits: logits[:1], "must return"),
    "classes": (lambda logits: logits.argmax(1, keepdim=True), "not logits"),
}


@pytest.mark.parametrize(("change", "message"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_logits_is_named_everywhere(change, message, net, images, labels):
    class Other(nn.Module):
        def forward(self, images):
            return change(net(images))

    model = Other().eval()
    noisy = si.NoisyModel(model, inputs=si.Gaussian(0.1)).eval()
    for use in (
        lambda: si.pgd(model, images, labels, si.Linf(0.1)),
        lambda: si.pgd(noisy, images, labels, si.Linf(0.1)),
        lambda: si.SmoothedClassifier(noisy, samples=2).predict(images),
        lambda: si.evaluate(model, (images, labels), attack="fgsm"),
    ):
        with pytest.raises(si.InputError, match=message):
            use()


def test_logits_are_taken_out_of_whatever_holds_them(net, images):
    class Holder(nn.Module):
        def __init__(self, hold):
            super().__init__()
            self.hold = hold

        def forward(self, images):
            return self.hold(net(images))

    for part, hold in ((1, lambda z: (0, z)), ("out", lambda z: {"out": z})):
        assert torch.equal(si.LogitsOf(Holder(hold), part)(images), net(images))
    with pytest.raises(si.InputError, match="no 'logits'"):
        si.LogitsOf(Holder(lambda z: {"out": z}))(images)


def test_a_minimal_norm_example_counts_after_the_rounding(net):
    """Rounded afterwards, some examples right behind the boundary fall back."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=generator) / 255
    labels = net(images).argmax(1)
    free = si.ddn(net, images, labels, si.L2(3.0), steps=50)
    found = si.ddn(net, images, labels, si.L2(3.0), steps=50, quantize=True)
    rounded = (free * 255).round() / 255
    assert (net(rounded).argmax(1) == labels).any()
    moved = si.L2(3.0).distance(found, images) > 0
    assert moved.float().mean() > 0.9
    assert (net(found).argmax(1) != labels)[moved].all()


def test_rows_tell_whether_an_image_has_eight_bits(net):
    images = torch.randint(0, 256, (4, 1, 8, 8)) / 255
    labels = torch.zeros(4, dtype=torch.long)
    for quantize in (False, True):

        def attack(*given, quantize=quantize, **options):
            return si.pgd(*given, steps=2, quantize=quantize, **options)

        rows = si.evaluate(net, (images, labels), attack=attack, ball=si.Linf(0.1), samples=1)
        told = dict(zip(rows["attack"].to_pylist(), rows["eight_bit"].to_pylist(), strict=True))
        assert told == {"none": True, "attack": quantize}


def test_the_old_name_of_an_option_still_works_with_a_warning(net, images, labels):
    with pytest.warns(FutureWarning, match="loss="):
        si.pgd(net, images, labels, si.Linf(0.1), objective="margin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        si.pgd(net, images, labels, si.Linf(0.1), loss="margin")
