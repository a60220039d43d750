"""Audits of few images: no alarm for sound models, and alarms as soon as there can be any."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.audit.context import QUICK, AuditContext
from smoothinfer.evaluation.audit.runner import audit
from tests.evaluation.audit.conftest import BALL, Reversed, Wrapped
from tests.evaluation.audit.test_gradient_checks import Blind, Detached

SIZES = [1, 2, 3, 5, 10, 20, 50]


class LessTheMean(Wrapped):
    def forward(self, images):
        answers = self.model(images)
        return answers - 0.5 * answers.mean(0)


class NaNGradient(Wrapped):
    def forward(self, images):
        return self.model(images) + (images - images).sqrt().flatten(1).sum(1, keepdim=True)


class Constant(Wrapped):
    def forward(self, images):
        return self.model(images) * 0 + torch.tensor([1.0] + [0.0] * 9)


@pytest.fixture(scope="module")
def line():
    """A linear model, for which every attack is exact."""
    data = si.load_data("digits", "train")
    with si.isolated_rng(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(data.images), data.labels).backward()
        optimizer.step()
    return net.eval()


def right_images(model, count, seed=0):
    data = si.load_data("digits", "test")
    data = data[(model(data.images).argmax(1) == data.labels).nonzero().flatten()]
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]]


@pytest.mark.parametrize("size", SIZES)
def test_a_sound_model_raises_no_alarm_on_few_images(size, line):
    for seed in range(2):
        found = audit(line, right_images(line, size, seed), ball=BALL, quick=True, seed=seed)
        assert not found.fired, [(f.name, f.measured) for f in found.fired]
        assert found.too_few or size > 10
        if size < 10:
            images = "one image is" if size == 1 else f"{size} images are"
            assert found.verdict.startswith(f"Not complete: {images} too few to tell by check ")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_sound_networks_raise_no_alarm_on_few_images(size, static):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    for model in (static, si.SmoothedClassifier(noisy, 64)):
        for seed in range(2):
            images = right_images(static, size, seed)
            found = audit(model, images, ball=BALL, quick=True, seed=seed, checks=range(1, 11))
            assert not found.fired, [(f.name, f.measured) for f in found.fired]


# Each with the check that fires, and the fewest images on which it does.
DEFECTS = {
    "no gradient": (Blind, 1, 1),
    "gradients that are no numbers": (NaNGradient, 1, 1),
    "constant logits": (Constant, 1, 1),
    "less the mean of the batch": (LessTheMean, 2, 1),
    "zero gradients": (Detached, 1, 2),
    "reversed gradients": (Reversed, 3, 3),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_as_soon_as_there_are_enough_images(name, line):
    defect, number, least = DEFECTS[name]
    model = defect(line)
    data = right_images(line, 60)
    labels = model(data.images).argmax(1)
    for count in {max(1, least - 1), least, 10}:
        pair = data.images[:count], labels[:count]
        (finding,) = audit(model, pair, ball=BALL, quick=True, checks=[number]).findings
        assert finding.fired == (count >= least), (count, finding.measured)
        if not finding.fired:
            assert (finding.state, finding.too_few) == ("skipped", True)
            assert f"needs at least {least} images" in finding.measured


def test_masked_gradients_are_found_as_soon_as_ten_images_can_be_broken(line):
    data = right_images(line, 25)
    for count, state in ((9, "skipped"), (25, "alarm")):
        found = audit(Reversed(line), data[:count], ball=BALL, quick=True, checks=[8])
        assert found.findings[0].state == state, found.findings[0].measured


def test_an_audit_that_could_not_tell_says_how_many_images_it_takes(line):
    found = audit(line, right_images(line, 3), ball=si.Linf(0.01), quick=True, checks=[5, 8])
    assert [f.measured for f in found.findings] == [
        "needs at least 12 images that survive the attack: there are 3",  # three comparisons
        "needs at least 10 images that survive the attack: there are 3",
    ]
    assert found.verdict == (
        "Not complete: 3 images are too few to tell by check 5, 8. No check fired; audit more "
        "images."
    )


def test_checks_of_some_images_take_all_classes_of_sorted_data(line):
    data = si.load_data("digits", "test")
    data = data[data.labels.argsort(stable=True)]
    context = AuditContext(line, data.images, data.labels, BALL, QUICK)
    rows = context.few()
    assert len(rows) == QUICK.few
    assert set(data.labels[rows].tolist()) == set(range(10))
    assert torch.equal(rows, AuditContext(line, data.images, data.labels, BALL, seed=5).few(64))
    assert len(set(data.labels[context.choose(context.clean().nonzero().flatten(), 20)])) > 5
