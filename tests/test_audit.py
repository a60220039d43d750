"""The audit fires on planted defects, each for the right reason, and not on sound models."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.audit import CHECKS, audit
from smoothinfer.evaluation.audit.finding import worse
from smoothinfer.recipes import load_recipe
from smoothinfer.runs import train_run

BALL = si.Linf(0.15)


@pytest.fixture(scope="module")
def digits():
    return si.load_data("digits", "test", 120)


def trained(folder, **changes):
    settings = {"noise.weights": "null", "epochs": 12, **changes}
    recipe = load_recipe("recipes/digits/cni-w.yaml", [f"{k}={v}" for k, v in settings.items()])
    train_run(recipe, si.load_data("digits", "train"), folder)
    return si.load(folder)


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"), loss="natural", epochs=6)


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.training = False


class Quantised(Wrapped):
    def forward(self, images):
        return self.model((images * 6).round() / 6)


class Detached(Wrapped):
    def forward(self, images):
        return self.model(images.detach()) + 0 * images.mean()


class Saturated(Wrapped):
    def forward(self, images):
        return 1e4 * self.model(images)


class Probabilities(Wrapped):
    """Softmax fed as logits, of a confident network."""

    def forward(self, images):
        return (30 * self.model(images)).softmax(1)


class Shattered(Wrapped):
    def forward(self, images):
        return self.model(images + 0.02 * torch.sin(900 * images))


class Reversed(Wrapped):
    """A gradient that points the wrong way."""

    def forward(self, images):
        return self.model(2 * images.detach() - images)


class WinnersTakeAll(Wrapped):
    """Only the largest tenth of each feature map's values passes on."""

    def forward(self, images):
        features = images
        for part in [*self.model.module[:1], *self.model.module[1]]:
            features = part(features)
            if isinstance(part, nn.ReLU):
                flat = features.flatten(1)
                least = flat.kthvalue(int(0.93 * flat.shape[1]), dim=1).values
                features = features * (flat >= least[:, None]).view_as(features)
        return features


class Sleeping(Wrapped):
    """Noise in training mode only."""

    def forward(self, images):
        noise = 0.2 * torch.randn_like(images) if self.training else 0
        return self.model(images + noise)


class Evasive(Wrapped):
    """Noise for whoever asks for gradients."""

    def forward(self, images):
        noise = 0.3 * torch.randn_like(images) if images.requires_grad else 0
        return self.model(images + noise)


class Memorised(Wrapped):
    """The same noise for each place in the batch, at every call."""

    def forward(self, images):
        with si.isolated_rng(7):
            return self.model(images + 0.3 * torch.randn_like(images))


class Loud(Wrapped):
    """So much noise that votes are near ties."""

    def forward(self, images):
        return self.model(images + 1.5 * torch.randn_like(images))


class Dazzling(Wrapped):
    """Gradients are noise, answers hardly are."""

    def forward(self, images):
        dazzle = 20 * torch.randn_like(images) * (images - images.detach())
        answers = self.model(images + 0.02 * torch.randn_like(images))
        return answers + dazzle.flatten(1).sum(1, keepdim=True) * torch.randn_like(answers)


DEFECTS = [
    (Quantised, {1}),
    (Detached, {1}),
    (Saturated, {1}),
    (Probabilities, {1}),
    (Shattered, {3, 5, 6, 7, 8, 12}),
    (Reversed, {3, 6, 7, 8}),
    (WinnersTakeAll, {3, 5, 6, 7, 8, 12}),
    (Sleeping, {2}),
    (Evasive, {2}),
    (Memorised, {2}),
    (Loud, {11}),
    (Dazzling, {4}),
]


@pytest.mark.parametrize(
    ("defect", "checks"), DEFECTS, ids=lambda case: getattr(case, "__name__", "")
)
def test_planted_defects_are_found(defect, checks, plain, static, digits):
    model = static if defect in (Loud, Dazzling) else plain
    found = audit(defect(model).eval(), digits, ball=BALL, quick=True, checks=checks)
    assert found.fired, [(f.number, f.state, f.measured) for f in found.findings]
    assert {finding.number for finding in found.fired} <= checks
    assert "Not to be relied on" in found.verdict


def test_images_of_the_training_are_recognised(static, digits):
    seen = si.load_data("digits", "train").images
    clear = audit(static, digits, ball=BALL, quick=True, checks=[13], seen=seen)
    assert clear.findings[0].state == "clear"
    mixed = audit(
        static, digits, ball=BALL, quick=True, checks=[13], seen=[seen, digits.images[:3]]
    )
    assert mixed.fired
    assert "3 of 120" in mixed.findings[0].measured


def test_a_sound_static_model_raises_no_alarm(static, digits):
    found = audit(static, digits, ball=BALL, quick=True)
    assert [finding.number for finding in found.findings] == list(CHECKS)
    assert not found.fired, [(f.name, f.measured) for f in found.fired]
    assert found.clean.value > found.attacked.value > 0.3


@pytest.mark.slow
def test_a_second_sound_static_model_raises_no_alarm(tmp_path, digits):
    assert not audit(trained(tmp_path, seed=1), digits, ball=BALL, quick=True).fired


def test_a_random_model_is_noted_and_audited_the_same_again(static, digits):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=64)
    one, two = (
        audit(smooth, digits[:20], ball=BALL, quick=True, checks=[2, 4, 9, 11]) for _ in range(2)
    )
    assert next(finding.state for finding in one.findings) == "note"
    assert [f.measured for f in one.findings] == [f.measured for f in two.findings]


@pytest.mark.slow
def test_a_random_model_goes_through_every_check(static, digits):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    found = audit(noisy, digits, ball=BALL, quick=True)
    states = {finding.number: finding.state for finding in found.findings}
    assert states.pop(13) == "skipped"
    assert states.pop(2) == "note"
    states.pop(11)  # 64 passes leave some votes near a tie: that alarm may be right
    assert set(states.values()) <= {"clear", "note"}, [f.measured for f in found.fired]


def test_drops_need_points_and_certainty():
    before = torch.ones(300, dtype=torch.bool)
    few, many = before.clone(), before.clone()
    few[:4] = False
    many[:10] = False
    assert worse(before, few)[0] is False
    assert worse(before, many)[0] is True
    assert worse(many, before)[0] is False


def test_bad_audits_are_refused(static, digits):
    with pytest.raises(si.InputError, match="numbered 1 to 13"):
        audit(static, digits, checks=[14])
    with pytest.raises(si.InputError, match="no images"):
        audit(static, (digits.images[:0], digits.labels[:0]))
