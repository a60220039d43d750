"""Runs of the tables and figures: each runs, and nothing is printed that was not measured."""

import importlib
import itertools
import shutil
from pathlib import Path

import pytest
import torch
from markupsafe import escape

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.config.components import Component
from smoothinfer.runtime.provenance import computer
from smoothinfer.workflows.reproduce.experiments import load_experiment
from smoothinfer.workflows.reproduce.runs import compare, reproduce
from tests.workflows.reproduce.conftest import NAMES


@pytest.fixture
def nothing_shipped(monkeypatch):
    """Whatever comes with the package."""
    module = importlib.import_module("smoothinfer.workflows.reproduce.experiments")
    monkeypatch.setattr(module, "_SHIPPED", "-of-nobody")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs(name, runs, tmp_path):
    torch.set_num_threads(1)
    given = ["reproduce", name, "--data", "digits", "--scale", "smoke", "--runs", str(runs)]
    assert main([*given, "--out", str(tmp_path), "--set", "limit=6"]) == 0
    assert (tmp_path / "report" / "index.html").exists()
    text = (tmp_path / f"{name}.md").read_text()
    assert text.startswith("# ")
    assert "nan" not in text
    page = (tmp_path / "report" / "index.html").read_text()
    experiment = load_experiment(name, "smoke")
    assert escape(experiment.title) in page
    assert f"smoothinfer reproduce {name} " in page
    assert f"Computed with {computer()}." in page
    for row in experiment.published:  # the paper's figures are on the page too
        assert escape(row["row"]) in page
    drawn = list((tmp_path / "figures").glob("*.png"))
    assert page.count("data:image/webp") >= len(drawn)
    assert all(f"![{path.name}]" in text for path in drawn)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["short", "paper"])
def test_every_row_of_the_paper_finds_the_setting_it_means(name, scale):
    """Among records as a sweep writes them, one and one only."""
    experiment = load_experiment(name, scale)
    held = {
        part: [
            {"model": model, "attack": str(Component.of(attack)), "sigma": sigma, "samples": n}
            | {"clean": measured(1.0), "attacked": measured(2.0)}
            for model, attack, sigma, n in itertools.product(
                sweep.named, sweep.attacks, sweep.sigmas, sweep.samples
            )
        ]
        for part, sweep in experiment.sweeps(["data=digits"]).items()
    }
    for line in compare(experiment, held).lines:
        assert line[3].startswith("1.0"), line


def test_numbers_stand_beside_the_papers(runs, tmp_path):
    changes = ["limit=6", "attacks=[pgd(steps=1)]"]
    reproduce(
        "figure-b2", tmp_path, data="digits", runs=runs, overrides=[*changes, "samples=[1,2]"]
    )
    assert list((tmp_path / "figures").glob("*.svg"))
    experiment = load_experiment("table1")
    held = {
        "without noise": [
            {
                "model": "TRADES 6",
                "attack": str(Component.of("pgd(steps=7, step_size=2/255)")),
                "clean": measured(70.0),
                "attacked": measured(40.0),
            }
        ]
    }
    found = compare(experiment, held, ["Not measured: this."])
    lines = found.markdown().splitlines()
    row = next(line for line in lines if line.startswith("| TRADES (1/lambda = 6"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "75.47", "47.75", "70.0 (60.0-80.0)", "40.0 (30.0-50.0)", "100",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("| adversarial training"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [""] * 5  # unknown, and not measured
    assert "Not measured: this." in lines


def measured(value):
    ends = {"low": value - 10, "high": value + 10}
    return {"value": value, **ends, "std": None, "images": 100}


def test_models_that_are_not_trained_are_named(runs, nothing_shipped, tmp_path, capsys):
    shutil.copytree(runs / "cni-w", tmp_path / "runs" / "cni-w")
    options = {"scale": "smoke", "runs": tmp_path / "runs", "overrides": ["limit=6"]}
    path = reproduce("table4", tmp_path / "out", data="digits", **options)
    assert "Not measured: high k of high-k." in path.read_text()
    assert "left out: CNI-I+W of cni-i-w" in " ".join(capsys.readouterr().out.split())
    path = reproduce("table1", tmp_path / "one", data="digits", **options)
    text = path.read_text()
    assert "Not measured: without noise of natural, adversarial" in text
    assert (tmp_path / "one" / "one pass" / "table.parquet").exists()  # of the one that is there
    with pytest.raises(si.InputError, match="none of the models of figure-b2"):
        reproduce("figure-b2", tmp_path / "none", data="digits", **options)
    with pytest.raises(si.InputError, match=r"unknown experiment 'table9'.*table1"):
        reproduce("table9", tmp_path / "none", data="digits")


def test_what_another_experiment_measured_alike_is_not_done_again(runs, tmp_path, monkeypatch):
    options = {"data": "digits", "scale": "smoke", "runs": runs, "overrides": ["limit=6"]}
    held = tmp_path / "results"
    reproduce("figure1", held / "figure1", **options)
    reproduce("figure2", tmp_path / "alone", **options)

    def refuse(*_):
        raise AssertionError("a unit was done again")

    monkeypatch.setattr("smoothinfer.evaluation.units.Evaluation.run_units", refuse)
    for name in ("figure2", "figure-b1"):
        reproduce(name, held / name, reuse=held, **options)
    table = Path("CNI-W", "table.parquet")
    assert (held / "figure2" / table).read_bytes() == (tmp_path / "alone" / table).read_bytes()
    with pytest.raises(AssertionError, match="done again"):
        reproduce("figure-b2", held / "figure-b2", reuse=held, **options)
    with pytest.raises(si.InputError, match="elsewhere to reuse"):
        reproduce("figure2", held / "figure2", reuse=tmp_path / "elsewhere", **options)


def test_all_experiments_are_one_command(runs, nothing_shipped, tmp_path, capsys):
    shutil.copytree(runs / "cni-w", tmp_path / "runs" / "cni-w")
    given = ["reproduce", "all", "--data", "digits", "--scale", "smoke", "--set", "limit=6"]
    out = tmp_path / "out"
    assert main([*given, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "figure-b2 is left out: none of the models of figure-b2 is in" in printed
    assert "new units from" in printed  # what one that came before measured alike
    page = (out / "report" / "index.html").read_text()
    for name in ("figure1", "table4"):
        assert escape(load_experiment(name).title) in page
    assert "linear" in (out / "appendix-a" / "appendix-a.md").read_text()
    assert main([*given, "--runs", str(tmp_path), "--out", str(out)]) == 2
    capsys.readouterr()
    assert main([*given, "--reuse", str(out), "--out", str(out)]) == 2
    assert "all takes no --reuse" in capsys.readouterr().err


def test_an_experiment_without_the_source_of_its_attack_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothinfer.checkpoints.list_models", list)  # as if nothing were shipped
    with pytest.raises(si.InputError, match="none of the models of table2 is in"):
        reproduce("table2", tmp_path / "out", data="digits", runs=tmp_path)
