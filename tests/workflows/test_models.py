"""The command ``smoothinfer models``."""

import json
import shutil

import pytest

import smoothinfer as si
from smoothinfer.cli import main
from tests.reporting.strangers import changed

HOSTILE = "x\x1b]0;owned\x07\r\u202e[/b][red]\nanother-model: resnet20"


def test_models_lists_the_shipped_ones(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in si.list_models() or ["there are no models"])


@pytest.fixture
def published(tiny_run, tiny_results, tmp_path):
    si.publish(tiny_run, "mine", tmp_path, [tiny_results])
    return tmp_path / "mine.json"


def test_a_hostile_card_is_a_line_and_a_table_of_text(published, capsys):
    card = json.loads(published.read_text())
    del card["checksum"]
    hostile = changed(card, lambda value, place: HOSTILE if isinstance(value, str) else value)
    published.write_text(json.dumps(hostile))
    shutil.copy(published.with_suffix(".safetensors"), published.with_name("[b]\x1b.safetensors"))
    shutil.copy(published, published.with_name("[b]\x1b.json"))
    for words, mark in (([], " "), (["mine", "[b]\x1b"], ":")):
        assert main(["models", *words, "--folder", str(published.parent)]) == 0
        printed = capsys.readouterr().out
        assert printed.replace("\n", "").isprintable()
        assert sum(line.startswith(f"mine{mark}") for line in printed.splitlines()) == 1
        assert sum(line.startswith(f"[b]\\x1b{mark}") for line in printed.splitlines()) == 1
        assert not any(line.startswith("another-model") for line in printed.splitlines())


def test_a_model_is_a_line_with_its_lowest_figure_and_alone_a_table(published, capsys):
    folder = ["--folder", str(published.parent)]
    assert main(["models", *folder]) == 0
    heads, line = capsys.readouterr().out.splitlines()
    figures = json.loads(published.read_text())["figures"]
    votes = [f for f in figures if f["description"]["samples"] == 4 and f["attacked"]]
    lowest = min(f["attacked"]["value"] for f in votes)
    assert heads.split()[:3] == ["model", "clean", "left"]
    assert line.split()[2] == f"{100 * lowest:.1f}"
    assert "vote of 4" in line
    assert main(["models", "mine", *folder]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 4
    assert main(["models", "mien", *folder]) == 2
    assert "did you mean 'mine'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": []},
        {"recipe": {"model": "resnet"}},
        {"figures": {}},
        {"figures": [{"description": {}}]},
        {"data": "digits"},
        {"results": {"validation": 3}},
    ],
    ids=lambda change: str(change)[:30],
)
def test_a_damaged_card_is_an_error_of_one_line(change, published, capsys):
    card = json.loads(published.read_text())
    del card["checksum"]
    published.write_text(json.dumps(card | change))
    assert main(["models", "--folder", str(published.parent)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {published}, {next(iter(change))}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("name", ["", "nowhere", "file"])
def test_a_folder_that_is_none_is_named(name, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["models", "--folder", name and str(tmp_path / name)]) == 2
    assert "no such folder" in capsys.readouterr().err
