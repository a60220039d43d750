"""The passes that an attack costs, counted for each image."""

from functools import partial

import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.rows import summarise
from tests.conftest import line
from tests.evaluation.conftest import RADIUS


def test_rows_count_right_passes_and_what_an_attack_costs(world):
    noisy, images, labels = world
    smooth = si.SmoothedClassifier(noisy, samples=16)
    attacks = {
        "averaged": partial(si.pgd, steps=3, draws=4),
        "one step": partial(si.fgsm, draws=2),
        "vote": partial(si.pgd, steps=2),
    }
    rows = si.evaluate(smooth, (images, labels), attack=attacks, ball=si.Linf(RADIUS))
    costs = {
        entry["description"]["attack"]: (
            entry["attacked"]["forwards"],
            entry["attacked"]["backwards"],
        )
        for entry in summarise(rows)
    }
    assert costs == {"averaged": (12, 12), "one step": (2, 2), "vote": (2, 2)}
    for entry in summarise(rows):
        for measured in (entry["clean"], entry["attacked"]):
            assert measured["every_draw"] <= min(measured["per_draw"], measured["value"])
    on_vote = si.evaluate(
        smooth, (images, labels), attack=attacks, ball=si.Linf(RADIUS), target=smooth
    )
    vote = next(e for e in summarise(on_vote) if e["description"]["attack"] == "vote")
    assert (vote["attacked"]["forwards"], vote["attacked"]["backwards"]) == (32, 32)


def test_a_transferred_attack_is_charged_what_it_asks_its_source():
    data = si.load_data("digits", "test", 20)
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    attacks = {
        "direct": partial(si.pgd, steps=2),
        "transferred": partial(si.transfer, source=line(), steps=2),
    }
    rows = si.evaluate(noisy, data, attack=attacks, ball=si.Linf(0.1))
    costs = {e["description"]["attack"]: e["attacked"] for e in summarise(rows)}
    assert costs["direct"]["forwards"] == costs["transferred"]["forwards"] > 0
    assert costs["direct"]["backwards"] == costs["transferred"]["backwards"] > 0


def test_nothing_is_counted_after_the_count_has_ended():
    net, images = nn.Linear(4, 2), torch.rand(3, 4, requires_grad=True)
    with Cost().on(net) as cost:
        net(images).sum().backward()
        assert (cost.forwards, cost.backwards) == (3, 3)
    net(images).sum().backward()
    assert (cost.forwards, cost.backwards) == (3, 3)
    assert cost.seconds > 0
