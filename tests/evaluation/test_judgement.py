"""Verdicts agree with their numbers as they are printed."""

import pytest

from smoothinfer.evaluation.judgement import (
    LEANS,
    leads_clearly,
    points,
    printed_sign,
    verdict_of,
)
from smoothinfer.evaluation.standing import Standing
from smoothinfer.numerics.statistics import Interval, proportion


@pytest.mark.parametrize("low", [-0.03, -0.0004, 0.0, 0.00016, 0.0004, 0.00051, 0.02])
def test_the_vote_adds_accuracy_only_where_the_printed_interval_excludes_zero(low):
    gain = Interval(0.036, low, 0.0713, 1000)
    half = proportion(500, 1000)
    under = Standing(mean=half, worst=half, vote=half, gain=gain, luck=0.0, shared_luck=0.0)
    says = "adds accuracy" in verdict_of(under, under, half, half, half)
    shown = points(gain).partition("(")[2]
    assert says == (shown.startswith("+") and not shown.startswith("+0.0"))


@pytest.mark.parametrize(("high", "caveat"), [(-0.01, True), (0.01, False)])
def test_a_negative_gain_under_the_standard_attack_is_told_to_lean(high, caveat):
    half = proportion(500, 1000)
    gain = Interval(-0.03, -0.05, high, 1000)
    under = Standing(mean=half, worst=half, vote=half, gain=gain, luck=0.0, shared_luck=0.0)
    assert (f"; {LEANS}." in verdict_of(under, under, half, half, half)) == caveat


def test_a_loss_is_one_only_where_its_printed_interval_is_below_zero():
    assert printed_sign(Interval(-0.03, -0.06, -0.0004, 100)) == 0
    assert printed_sign(Interval(-0.03, -0.06, -0.001, 100)) == -1


def test_a_lead_whose_printed_ends_touch_may_be_chance():
    assert not leads_clearly(Interval(0.5, 0.4001, 0.6, 100), Interval(0.3, 0.2, 0.4, 100))
    assert leads_clearly(Interval(0.5, 0.401, 0.6, 100), Interval(0.3, 0.2, 0.4, 100))
