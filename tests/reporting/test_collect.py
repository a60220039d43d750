"""Result folders, read back."""

import json
import shutil

import pytest

from smoothinfer.cli import main
from smoothinfer.reporting.collect import collect, records, varying


def test_records_are_the_summary_over_seeds(results):
    summary = json.loads((results / "sweep" / "summary.json").read_text())["settings"]
    found = records(collect(results / "sweep").rows)
    assert len(found) == len(summary) // 2
    assert varying(found) == ["sigma", "attack", "rule", "samples"]
    one = found[0]
    about = {"sigma": one["sigma"], "attack": one["attack"], "rule": one["rule"]}
    same = [
        entry
        for entry in summary
        if about.items() <= entry["description"].items()
        and entry["description"]["samples"] == one["samples"]
    ]
    mean = sum(entry["attacked"]["value"] for entry in same) / 2
    assert len(same) == one["seeds"] == 2
    assert one["attacked"]["value"] == pytest.approx(100 * mean, abs=1e-3)
    gap = 100 * abs(same[0]["attacked"]["value"] - same[1]["attacked"]["value"])
    assert one["attacked"]["std"] == pytest.approx(gap / 2**0.5, abs=1e-3)


def test_settings_are_those_of_the_table(results, tmp_path):
    shutil.copytree(results / "sweep", tmp_path / "sweep")
    later = json.dumps({"sweep": {"radius": [0.3]}})
    (tmp_path / "sweep" / "settings.json").write_text(later)  # a run that did not end
    found = collect(tmp_path / "sweep")
    assert found.settings["asked"]["radius"] is None


def test_pictures_come_with_the_commands_that_drew_them(tmp_path):
    command = ["tests.conftest:noisy_line", "--data", "digits", "--limit", "12"]
    for kind in (["votes", *command, "--attack", "pgd(steps=1)"], ["gradients", *command]):
        assert main(["picture", *kind, "--out", str(tmp_path / "drawn")]) == 0
    settings = collect(tmp_path / "drawn").settings
    commands = settings["command"].splitlines()
    assert [command.split()[:3] for command in commands] == [
        ["smoothinfer", "picture", "gradients"],
        ["smoothinfer", "picture", "votes"],
    ]
    assert len(settings["computers"]) == 1
