"""Summaries name what made their rows: every version and computer, not the present one."""

import json

import pytest

from smoothinfer.cli import main
from smoothinfer.evaluation import makers
from smoothinfer.evaluation.makers import maker

OLD = {"version": "0.0.9", "code": "0123456789ab", "computer": "torch 1.0, an *abacus*"}


def evaluate(folder, attack, capsys, *more):
    options = ["tests.conftest:fresh_net", "--data", "digits", "--limit", "8", "--samples", "2"]
    options += ["--attack", attack, "--sigma", "0.1", "--out", str(folder), *more]
    assert main(["evaluate", *options]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    return summary, (folder / "table.md").read_text(), capsys.readouterr().out


@pytest.fixture
def of_two_versions(tmp_path, capsys, monkeypatch):
    """Clean rows of an old version, attacked ones of this."""
    with monkeypatch.context() as before:
        before.setattr(makers, "version", lambda name: OLD["version"])
        before.setattr(makers, "library_digest", lambda name: OLD["code"])
        before.setattr(makers, "computer", lambda: OLD["computer"])
        first = evaluate(tmp_path, "none", capsys)
    return first, evaluate(tmp_path, "fgsm", capsys)


def test_yesterdays_rows_carry_yesterdays_version(of_two_versions):
    (summary, table, _), _ = of_two_versions
    assert summary["made_by"] == [OLD | {"units": 1}]
    assert summary["computers"] == [OLD["computer"]]
    assert "versions" not in summary
    today = maker()
    assert today["version"] not in table
    assert today["code"] not in json.dumps(summary) + table
    assert "smoothinfer 0.0.9 (code 0123456789ab), torch 1.0, an" in table


def test_mixed_rows_name_all_that_made_them(of_two_versions):
    _, (summary, table, printed) = of_two_versions
    today = maker()
    assert summary["made_by"] == [OLD | {"units": 1}, today | {"units": 1}]
    assert set(summary["computers"]) == {OLD["computer"], today["computer"]}
    for each in (OLD, today):
        assert f"smoothinfer {each['version']} (code {each['code']})" in table
    assert r"an \*abacus\*: 1 units" in table
    flat = " ".join(printed.split())
    assert "1 stored units are taken over, made by smoothinfer 0.0.9" in flat
    assert "note: rows were made by smoothinfer 0.0.9" in flat


def test_certificates_name_what_made_them(tmp_path):
    options = ["tests.conftest:fresh_net", "--data", "digits", "--limit", "4", "--samples", "50"]
    assert main(["certify", *options, "--sigma", "0.1", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "certified.json").read_text())
    assert content["made_by"] == [maker() | {"units": 1}]
    assert "versions" not in content["settings"]


def test_a_folder_of_another_model_says_so_in_one_line(tmp_path, capsys):
    _, table, printed = evaluate(tmp_path, "fgsm", capsys)
    line = "tests.conftest:fresh_net, 8 images of digits, attacks within 8/255 in L-infinity "
    line += "(the default), sigma 0.1, votes of 2"
    assert line in printed
    assert table.startswith(line)
    assert "held results" not in evaluate(tmp_path, "none", capsys)[-1]  # of the same model
    options = ["--data", "digits", "--limit", "8", "--samples", "2", "--out", str(tmp_path)]
    assert main(["evaluate", "tests.conftest:line", "--attack", "none", *options]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "held results" in line]
    assert told == [
        f"{tmp_path} held results of tests.conftest:fresh_net on digits: their rows stay in rows/, "
        "and table and summary are now of this command alone"
    ]
