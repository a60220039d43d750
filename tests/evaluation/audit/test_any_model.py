"""Whatever model and images are brought: the same findings, or one clear line."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si

BALL = si.Linf(0.05)
IMAGES = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def line():
    with si.isolated_rng(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()


LABELS = line()(IMAGES).argmax(1)


class Ending(nn.Module):
    """The linear model with another end."""

    def __init__(self, end):
        super().__init__()
        self.line, self.end, self.training = line(), end, False

    def forward(self, images):
        return self.end(self.line(images), images)


def audited(model, images=IMAGES, labels=LABELS):
    return si.audit(model, (images, labels), quick=True, ball=BALL)


def states(found):
    return [(finding.number, finding.state) for finding in found.findings]


@pytest.fixture(scope="module")
def usual():
    return audited(line())


def failing(logits, images):
    raise ZeroDivisionError("a\nb")


def far(logits, images):
    """Not a number where an attack goes, but not at the images."""
    return torch.where((images.amax((1, 2, 3)) > IMAGES.max())[:, None], torch.nan, logits)


REFUSED = {
    "raises": (failing, "does not take torch.float32 images .*: ZeroDivisionError: a b"),
    "a tuple": (lambda z, x: (z, x), "returns a tuple, not logits: wrap it in smoothinfer.Logits"),
    "a mapping": (lambda z, x: {"logits": z}, "returns a dict, not logits"),
    "labels": (lambda z, x: z.argmax(1), "must return .N, K. logits"),
    "one class": (lambda z, x: z[:, :1], "labels range over .*, but the model has 1 classes"),
    "no numbers": (lambda z, x: z * torch.nan, "^the model returned NaN or infinite logits"),
    "infinite": (lambda z, x: (1e3 * z).softmax(1).log(), "NaN or infinite logits"),
    "no numbers under attack": (far, "^under attack the model returned NaN or infinite logits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_audited_is_refused_in_one_line(name):
    end, message = REFUSED[name]
    with pytest.raises(si.InputError, match=message) as caught:
        audited(Ending(end))
    assert "\n" not in str(caught.value)


def test_other_input_that_cannot_be_audited_is_refused_in_one_line():
    for model, images, labels, message in (
        ("net", IMAGES, LABELS, "model must be a Module"),
        (line(), "images", LABELS, "images must be a torch.Tensor"),
        (line(), IMAGES, LABELS + 7, "labels range over"),
        (line(), IMAGES, (LABELS + 1) % 4, "no image is classified correctly .20 given."),
    ):
        with pytest.raises(si.InputError, match=message):
            audited(model, images, labels)


ALARMS = {
    "probabilities": (lambda z, x: z.softmax(1), "the outputs are probabilities"),
    "half-precision probabilities": (lambda z, x: z.softmax(1).half(), "are probabilities"),
    "constant": (lambda z, x: 0 * z, "the same logits for every image"),
    "constant without a gradient": (lambda z, x: 0 * z.detach(), "the same logits"),
    "detached": (lambda z, x: z.detach(), "cut off from the image by torch.no_grad, detach"),
    "by numpy": (lambda z, x: torch.from_numpy(z.numpy()), "RuntimeError: Can't call numpy"),
    "one hot": (lambda z, x: F.one_hot(z.argmax(1), 4).float(), "cut off from the image"),
}


@pytest.mark.parametrize("name", ALARMS)
def test_outputs_that_cannot_be_attacked_fire_the_first_check(name):
    end, measured = ALARMS[name]
    model = Ending(end)
    found = audited(model, labels=model.end(line()(IMAGES).detach(), IMAGES).argmax(1))
    assert found.findings[0].fired
    assert measured in found.findings[0].measured


def test_log_probabilities_are_logits(usual):
    assert states(audited(Ending(lambda z, x: z.log_softmax(1)))) == states(usual)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_findings_are_the_same_in_every_format(dtype, usual):
    model = copy.deepcopy(line()).to(dtype)
    for images in (IMAGES, IMAGES.to(dtype)):
        assert states(audited(model, images)) == states(usual)
    assert states(audited(line(), IMAGES.to(dtype))) == states(usual)


def test_findings_are_the_same_in_every_mode_of_autograd(usual):
    asking = IMAGES.clone().requires_grad_()
    assert states(audited(line(), asking)) == states(usual)
    assert asking.grad is None
    with torch.no_grad():
        assert states(audited(line())) == states(usual)
    with torch.inference_mode():
        model, images, labels = line(), IMAGES.clone(), LABELS.clone()
        with pytest.raises(si.InputError, match="was made under torch"):
            audited(model, images, labels)
        with torch.inference_mode(False):
            model = line()
        assert states(audited(model, images, labels)) == states(usual)
    assert states(audited(model, images, labels)) == states(usual)


def test_a_model_that_returns_more_in_training_mode_is_audited(usual):
    class Auxiliary(Ending):
        def forward(self, images):
            return (super().forward(images), images) if self.training else super().forward(images)

    assert states(audited(Auxiliary(lambda z, x: z))) == states(usual)
