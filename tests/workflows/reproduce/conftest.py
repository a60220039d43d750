"""A tiny trained model under every name that the experiments of the paper ask for."""

import shutil

import pytest

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from smoothinfer.workflows.reproduce.experiments import list_experiments, load_experiment
from tests.conftest import TINY

NAMES = list(list_experiments())


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A tiny trained model under every name that the experiments ask for."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = recipe_from(TINY | {"epochs": 1, "keep_worst": True})
    si.train_run(recipe, si.load_data("digits", "train", 200), folder / "first")
    for name in NAMES:
        for sweep in load_experiment(name).sweeps(["data=digits"]).values():
            for path in sweep.named.values():
                target = folder / path.split("/")[0]
                if not target.exists():
                    shutil.copytree(folder / "first", target)
    return folder
