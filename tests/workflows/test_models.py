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


def test_attack_passes_and_images_are_seen_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split() == ["model", "clean", "left", "attack", "votes", "images"]
    listed = lines[: len(si.list_models())]
    assert [line.split()[0] for line in listed] == list(si.list_models())
    assert not any("…" in line for line in lines)


@pytest.mark.skipif("cni-w-resnet20-cifar10" not in si.list_models(), reason="it is not shipped")
def test_every_line_of_a_card_names_its_attack_and_vote_and_one_pass_is_a_mean(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models", "cni-w-resnet20-cifar10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[2:])
    told = [line.split() for line in lines]
    one = next(line for line in told if line[:3] == ["PGD", "one", "pass"])
    assert one[4:] == ["67.1", "46.3"]  # of 512 passes; this card does not hold their interval
    assert sum(line[:1] == ["PGD"] for line in told) == 10  # 3 rules of 3 votes, and one pass


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
    heads, line, *about = capsys.readouterr().out.splitlines()
    assert "under the strongest attack" in " ".join(about)
    figures = json.loads(published.read_text())["figures"]
    votes = [f for f in figures if f["description"]["samples"] == 4 and f["attacked"]]
    lowest = min(f["attacked"]["value"] for f in votes)
    assert heads.split()[:3] == ["model", "clean", "left"]
    assert line.split()[2] == f"{100 * lowest:.1f}"
    assert dict(zip(heads.split(), line.split(), strict=False))["votes"] == "4"
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
