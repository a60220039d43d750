"""The command ``smoothinfer evaluate``."""

import json

import pyarrow.parquet as pq
import pytest

from smoothinfer.cli import main
from smoothinfer.workflows.evaluate import at_chance
from tests.reporting.test_glance import rows


def test_evaluate_leaves_a_summary(tiny_run, tmp_path, capsys):
    arguments = ["evaluate", str(tiny_run), "--data", "digits", "--attack", "pgd", "epgd(draws=2)"]
    arguments += ["--radius", "8/255", "--sigma", "0", "0.06", "--rule", "prediction", "soft"]
    arguments += ["--samples", "1", "8", "--limit", "20", "--seed", "0", "--out", str(tmp_path)]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "Gain of the vote of 8 over one pass" in (tmp_path / "table.md").read_text()
    assert len(summary["settings"]) == 2 * 2 * 2 * 2
    assert all(entry["clean"]["images"] == 20 for entry in summary["settings"])
    assert json.loads((tmp_path / "settings.json").read_text())["asked"]["limit"] == 20
    assert "EPGD x2" in capsys.readouterr().out
    assert main(arguments) == 0  # the second time everything is there already


def test_validation_images_are_those_that_training_held_out(tiny_run, tmp_path):
    arguments = ["evaluate", str(tiny_run), "--data", "digits", "--attack", "none"]
    assert (
        main([*arguments, "--samples", "1", "--split", "validation", "--out", str(tmp_path)]) == 0
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["data"]["images"] == 100


def test_bad_settings_of_evaluate_are_refused(tiny_run, tmp_path, capsys):
    base = ["evaluate", str(tiny_run), "--data", "digits", "--out", str(tmp_path)]
    for more, message in (
        (["--attack", "pdg"], "pgd"),
        (["--attack", "pgd(step=3)"], "steps"),
        (["--rule", "majority"], "prediction"),
        (["--radius", "big"], "radius"),
        (["--sigma", "-1"], "sigma"),
        (["--split", "tset"], "test"),
    ):
        assert main(base + more) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_summary_holds_what_others_read(tmp_path, capsys):
    arguments = ["evaluate", "tests.conftest:line", "--data", "digits", "--limit", "20"]
    arguments += ["--sigma", "0", "0.1", "--rule", "prediction", "soft", "--samples", "1", "8"]
    assert main([*arguments, "--radius", "0.05", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["settings"]) == 2 * 2 * 2
    for entry in summary["settings"]:
        assert {"attack", "sigma", "rule", "samples", "seed"} <= set(entry["description"])
        for name in ("clean", "attacked"):
            assert set(entry[name]) >= {"value", "low", "high", "images"}
    assert "clean" in capsys.readouterr().out
    assert pq.read_table(next((tmp_path / "rows").glob("*.parquet"))).num_rows > 0


def test_none_beside_an_attack_is_told(tiny_run, tmp_path, capsys):
    command = ["evaluate", str(tiny_run), "--data", "digits", "--out", str(tmp_path / "out")]
    assert main([*command, "--attack", "fgsm", "none"]) == 2
    assert "leave none out" in capsys.readouterr().err


def test_clean_accuracy_at_chance_is_warned_of_in_one_line(tmp_path, capsys):
    arguments = ["evaluate", "tests.conftest:line", "--data", "digits", "--limit", "100"]
    assert main([*arguments, "--attack", "none", "--samples", "1", "--out", str(tmp_path)]) == 0
    told = [each for each in capsys.readouterr().out.splitlines() if "warning: clean" in each]
    assert len(told) == 1
    assert "is at chance: images come in [0, 1]" in told[0]


@pytest.mark.parametrize(
    ("right", "classes", "told"),
    [([1] * 4, 10, False), ([1] * 3, 2, False), ([1, 0] * 8, 2, True), ([0] * 90, 10, True)],
)
def test_chance_is_one_in_as_many_as_there_are_classes(right, classes, told):
    assert at_chance(rows("m", {"none": right}), classes) == told
