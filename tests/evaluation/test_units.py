"""Units: votes together or alone, all settings from one run, attacks kept within the ball."""

from functools import partial

import pytest
from torch import nn

import smoothinfer as si
from smoothinfer.engine.passes import Engine
from smoothinfer.evaluation.evaluate import prepare
from tests.conftest import line
from tests.evaluation.conftest import RADIUS


def test_an_attack_that_leaves_the_ball_is_brought_back(world):
    noisy, images, labels = world

    def far(model, x, y, ball, generator=None):
        return 1 - x.round()

    with pytest.warns(UserWarning, match=r"attack 'far' moved images by up to .* projected back"):
        rows = si.evaluate(
            noisy, (images[:9], labels[:9]), attack={"far": far}, ball=si.Linf(RADIUS)
        )
    assert max(rows["distance"].to_pylist()) <= RADIUS + 1e-6
    for bad, message in (
        (lambda m, x, y, b, generator=None: x[:1], "returned"),
        (lambda m, x, y, b, generator=None: x / 0, "NaN"),
    ):
        with pytest.raises(si.InputError, match=message):
            si.evaluate(noisy, (images[:9], labels[:9]), attack={"bad": bad})


def test_all_settings_cost_one_run_of_the_most_passes(monkeypatch):
    """Seven sample counts and three rules for the passes of the largest alone."""
    counted = []
    real = Engine.blocks

    def count(self, images, first, samples):
        for block in real(self, images, first, samples):
            counted.append(len(block))
            yield block

    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.1)).eval()
    work = prepare(
        si.SmoothedClassifier(noisy, 64),
        si.load_data("digits", "test", 8),
        attack={"one step": si.fgsm, "two steps": partial(si.pgd, steps=2)},
        ball=si.Linf(0.1),
        rules=["prediction", "weighted", "soft"],
        samples=[2**k for k in range(7)],
    )
    monkeypatch.setattr(Engine, "blocks", count)
    for unit in work.units:
        work.run_units([unit])
    assert sum(counted) == 3 * 64  # clean and two attacks


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_units_run_together_give_the_rows_that_each_gives_alone(dropout, tmp_path):
    net = nn.Sequential(line(), nn.Dropout(dropout)).eval()
    net[1].training = bool(dropout)  # left on, a pass depends on an image's place
    model = si.NoisyModel(net, inputs=si.Gaussian(0.05)) if not dropout else net
    smooth = si.SmoothedClassifier(model, 8, tile=512)
    smooth.training = model.training = False
    data = si.load_data("digits", "test", 300)
    work = prepare(smooth, data, attack="fgsm", ball=si.Linf(0.1), cache=tmp_path)
    units = list(work.units)
    assert (len(units), work.units_at_once) == (6, 4)
    advances = []
    together = work.run_units(units, advances.append)
    assert sum(advances) == 6 * 8
    for unit, rows in zip(units, together, strict=True):
        assert rows.equals(*work.run_units([unit]))
