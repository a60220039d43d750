"""Checks 1 to 4 fire on planted defects, each for the right reason, and not on sound models."""

import pytest
import torch
import torch.nn.functional as F

import smoothinfer as si
from smoothinfer.evaluation.audit.runner import audit
from tests.evaluation.audit.conftest import BALL, Reversed, Wrapped, assert_fires


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


class Blind(Wrapped):
    """No gradient at all."""

    @torch.no_grad()
    def forward(self, images):
        return self.model(images)


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


def noisily(defect):
    """The defect under a little true noise, which must not hide it."""

    class Noisily(defect):
        def forward(self, images):
            answers = super().forward(images)
            return answers + 0.002 * torch.randn_like(answers)

    Noisily.__name__ = f"Noisily{defect.__name__}"
    return Noisily


class Dazzling(Wrapped):
    """Gradients are noise, answers hardly are."""

    def forward(self, images):
        dazzle = 20 * torch.randn_like(images) * (images - images.detach())
        answers = self.model(images + 0.02 * torch.randn_like(images))
        return answers + dazzle.flatten(1).sum(1, keepdim=True) * torch.randn_like(answers)


def voted(defect):
    """Somebody votes on it, as if it were random."""
    return lambda model: si.SmoothedClassifier(defect(model), samples=64)


# Each with the check that must fire, by what it says is wrong.
DEFECTS = {
    "quantised": (Quantised, 1),
    "detached": (Detached, 1),
    "blind": (Blind, 1),
    "saturated": (Saturated, 1),
    "probabilities": (Probabilities, 1),
    "noise off in eval mode": (voted(Sleeping), 2),
    "evasive": (Evasive, 2),
    "evasive, under noise": (noisily(Evasive), 2),
    "memorised": (Memorised, 2),
    "memorised, under noise": (noisily(Memorised), 2),
    "reversed": (Reversed, 3),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defects_are_found(name, plain, digits):
    defect, check = DEFECTS[name]
    assert_fires(defect(plain), digits, {check})


def test_a_gradient_that_is_mostly_noise_is_found(static, digits):
    assert_fires(Dazzling(static), digits, {4})


class Regularised(Wrapped):
    """Random in training mode, as many networks are, by no layer that says so."""

    def forward(self, images):
        return F.rrelu(self.model(F.dropout(images, 0.3, self.training)), training=self.training)


def test_what_is_random_in_training_only_is_no_defect(plain, digits):
    found = audit(Regularised(plain), digits, ball=BALL, quick=True, checks=[2])
    assert found.findings[0].state == "note"
    assert "not in training mode" in found.findings[0].verdict
