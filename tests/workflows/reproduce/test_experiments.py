"""The tables and figures of the paper as recipes: all are there, and each is well formed."""

from dataclasses import replace

import pytest

from smoothinfer.workflows.reproduce.experiments import load_experiment
from tests.workflows.reproduce.conftest import NAMES


def test_all_of_the_paper_is_there():
    tables = [f"table{number}" for number in (1, 2, 3, 4)]
    figures = ["figure1", "figure2", "figure-b1", "figure-b2", "figure-b3", "figure-b4"]
    assert set(NAMES) >= {*tables, *figures}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["short", "paper", "smoke"])
def test_every_experiment_is_well_formed(name, scale):
    experiment = load_experiment(name, scale)
    sweeps = experiment.sweeps(["data=digits"])
    assert sweeps
    assert all(sweep.first for sweep in sweeps.values())  # as the committed figures
    for figure in experiment.checked_figures():
        assert figure.part in sweeps
    for row in experiment.published:
        assert set(row) <= {"row", "clean", "attacked", "part", "at"}
        sweep = sweeps[row["part"]]
        at = row["at"]
        if scale == "smoke":
            continue
        assert at.get("model", next(iter(sweep.named))) in sweep.named
        assert at.get("attack", sweep.attacks[0]) in sweep.attacks
        assert "sigma" not in at or at["sigma"] in sweep.sigmas
        assert at.get("samples", sweep.samples[0]) in sweep.samples
        free = [len(sweep.named), len(sweep.attacks), len(sweep.samples), len(sweep.sigmas)]
        named = ["model", "attack", "samples", "sigma"]
        assert all(count == 1 or key in at for count, key in zip(free, named, strict=True))


def test_the_short_figures_share_their_sweeps():
    grids = []
    for name in ("figure1", "figure2", "figure-b1"):
        sweep = load_experiment(name).sweeps(["data=digits"])["CNI-W"]
        grids.append(replace(sweep, description=""))
    assert grids[0] == grids[1] == grids[2]


@pytest.mark.parametrize("trained", [True, False])
def test_the_source_of_a_transfer_is_looked_for_among_the_runs_and_the_shipped(tmp_path, trained):
    if trained:
        (tmp_path / "cni-w-long").mkdir()
        (tmp_path / "cni-w-long" / "best.safetensors").touch()
    place = str(tmp_path / "cni-w-long") if trained else "cni-w-long-resnet20-cifar10"
    experiment = load_experiment("table2", runs=tmp_path)
    (sweep,) = experiment.sweeps(["data=digits"]).values()
    assert f'source="{place}"' in sweep.attacks[0]
    assert experiment.published[0]["at"]["attack"] == sweep.attacks[0]
