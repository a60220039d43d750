"""The tables and figures of the paper: each runs, and nothing is printed that was not measured."""

import html
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.config.components import Component
from smoothinfer.workflows.reproduce.experiments import experiments, load_experiment
from smoothinfer.runtime.provenance import computer
from smoothinfer.recipes import recipe_from
from smoothinfer.workflows.reproduce.runs import compare, reproduce
from tests.test_training import TINY

NAMES = list(experiments())


@pytest.fixture(scope="module")
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
    assert html.escape(experiment.title) in page
    assert f"smoothinfer reproduce {name} " in page
    assert f"Computed with {computer()}." in page
    for row in experiment.published:  # the paper's figures are on the page too
        assert html.escape(row["row"]) in page
    drawn = list((tmp_path / "figures").glob("*.png"))
    assert page.count("data:image/png") >= len(drawn)
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
    reproduce("figure-b2", tmp_path, data="digits", runs=runs, overrides=[*changes, "samples=[1,2]"])
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


def test_what_is_not_trained_is_said(runs, tmp_path, capsys, monkeypatch):
    # Whatever comes with the package:
    monkeypatch.setattr("smoothinfer.workflows.reproduce.experiments._SHIPPED", "-of-nobody")
    shutil.copytree(runs / "cni-w", tmp_path / "runs" / "cni-w")
    options = {"scale": "smoke", "runs": tmp_path / "runs", "changes": ["limit=6"]}
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
    options = {"data": "digits", "scale": "smoke", "runs": runs, "changes": ["limit=6"]}
    held = tmp_path / "results"
    reproduce("figure1", held / "figure1", **options)
    reproduce("figure2", tmp_path / "alone", **options)

    def refuse(*_):
        raise AssertionError("a unit was done again")

    monkeypatch.setattr("smoothinfer.evaluation.units.Evaluation.do", refuse)
    for name in ("figure2", "figure-b1"):
        reproduce(name, held / name, reuse=held, **options)
    table = Path("CNI-W", "table.parquet")
    assert (held / "figure2" / table).read_bytes() == (tmp_path / "alone" / table).read_bytes()
    with pytest.raises(AssertionError, match="done again"):
        reproduce("figure-b2", held / "figure-b2", reuse=held, **options)
    with pytest.raises(si.InputError, match="elsewhere to reuse"):
        reproduce("figure2", held / "figure2", reuse=tmp_path / "elsewhere", **options)


def test_the_short_figures_share_their_sweeps():
    grids = []
    for name in ("figure1", "figure2", "figure-b1"):
        sweep = load_experiment(name).sweeps(["data=digits"])["CNI-W"]
        grids.append(replace(sweep, about=""))
    assert grids[0] == grids[1] == grids[2]


def test_all_experiments_are_one_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("smoothinfer.workflows.reproduce.experiments._SHIPPED", "-of-nobody")
    shutil.copytree(runs / "cni-w", tmp_path / "runs" / "cni-w")
    given = ["reproduce", "all", "--data", "digits", "--scale", "smoke", "--set", "limit=6"]
    out = tmp_path / "out"
    assert main([*given, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "figure-b2 is left out: none of the models of figure-b2 is in" in said
    assert "new units from" in said  # what one that came before measured alike
    page = (out / "report" / "index.html").read_text()
    for name in ("figure1", "table4"):
        assert html.escape(load_experiment(name).title) in page
    assert "linear" in (out / "appendix-a" / "appendix-a.md").read_text()
    assert main([*given, "--runs", str(tmp_path), "--out", str(out)]) == 2
    capsys.readouterr()
    assert main([*given, "--reuse", str(out), "--out", str(out)]) == 2
    assert "all takes no --reuse" in capsys.readouterr().err


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


def test_an_experiment_without_the_source_of_its_attack_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothinfer.checkpoints.models", list)  # as if nothing were shipped
    with pytest.raises(si.InputError, match="none of the models of table2 is in"):
        reproduce("table2", tmp_path / "out", data="digits", runs=tmp_path)


def test_the_appendix_says_what_a_linear_machine_does(tmp_path):
    assert main(["reproduce", "appendix-a", "--out", str(tmp_path)]) == 0
    lines = json.loads((tmp_path / "appendix-a.json").read_text())["lines"]
    assert (tmp_path / "appendix-a.png").stat().st_size > 1000
    for line in lines:
        assert line["gap"] >= -1e-6  # Jensen
        assert line["one"] <= line["mean"] + 1e-6 <= 1 + 2e-6
    assert lines[0]["gap"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["one"] == pytest.approx(1, abs=1e-5)
    assert lines[-1]["gap"] > 10 * lines[-1]["error"]
    assert lines[-1]["one"] < 0.7 < lines[-1]["mean"]


def test_the_worst_case_of_a_linear_machine_is_the_closed_form():
    """A.26 is A.27: the ball takes radius |w|_1 from the margin, and PGD finds it."""
    weight, bias = torch.tensor([0.5, -1.0, 0.25, 2.0]), 0.1
    machine = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        machine[1].weight.copy_(torch.stack([-weight / 2, weight / 2]))
        machine[1].bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    images = torch.rand(20, 1, 2, 2) * 0.6 + 0.2
    labels, radius = torch.ones(20, dtype=torch.int64), 0.1
    moved = si.pgd(machine, images, labels, si.Linf(radius), steps=10, loss="margin")
    found = moved.flatten(1) @ weight + bias
    closed = images.flatten(1) @ weight + bias - radius * weight.abs().sum()
    assert torch.allclose(found, closed, atol=1e-5)
