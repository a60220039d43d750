"""Networks to audit, trained within seconds, and an audit of a planted defect."""

import pytest
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.audit.runner import audit
from smoothinfer.recipes import load_recipe
from smoothinfer.workflows.train import train_run

BALL = si.Linf(0.15)


@pytest.fixture(scope="session")
def digits():
    return si.load_data("digits", "test", 120)


def trained(folder, **changes):
    settings = {"noise.weights": "null", "epochs": 12, **changes}
    recipe = load_recipe("recipes/digits/cni-w.yaml", [f"{k}={v}" for k, v in settings.items()])
    train_run(recipe, si.load_data("digits", "train"), folder)
    return si.load(folder)


@pytest.fixture(scope="session")
def static(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"), loss="natural", epochs=6)


class Wrapped(nn.Module):
    """A model with a defect around it."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.training = False


class Reversed(Wrapped):
    """A gradient that points the wrong way."""

    def forward(self, images):
        return self.model(2 * images.detach() - images)


def assert_fires(model, images, checks):
    """Every one of ``checks`` must fire, and no other."""
    found = audit(model.eval(), images, ball=BALL, quick=True, checks=checks)
    states = [(each.number, each.state, each.measured) for each in found.findings]
    assert {each.number for each in found.fired} == checks, states
    assert "Not to be relied on" in found.verdict
