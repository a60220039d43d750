"""Checks 9 to 11 and 13: secrets, ties, and images of the training."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.evaluation.audit.runner import audit
from tests.evaluation.audit.conftest import BALL, Wrapped, assert_fires


class Loud(Wrapped):
    """So much noise that votes are near ties."""

    def __init__(self, model, sigma=0.8):
        super().__init__(model)
        self.sigma = sigma

    def forward(self, images):
        return self.model(images + self.sigma * torch.randn_like(images))


def single_draw(model):
    """One draw is taken for a verdict: whoever asks again gets through."""
    return si.SmoothedClassifier(Loud(model, 0.6), samples=1)


@pytest.mark.parametrize("defect", [Loud, single_draw])
def test_votes_near_a_tie_are_found(defect, static):
    # Few images survive so much noise: of 120 too few would fall for an alarm.
    assert_fires(defect(static), si.load_data("digits", "test"), {11})


def test_images_of_the_training_are_recognised(static, digits):
    seen = si.load_data("digits", "train").images
    clear = audit(static, digits, ball=BALL, quick=True, checks=[13], seen=seen)
    assert clear.findings[0].state == "clear"
    mixed = audit(
        static, digits, ball=BALL, quick=True, checks=[13], seen=[seen, digits.images[:3]]
    )
    assert mixed.fired
    assert "3 of 120" in mixed.findings[0].measured
