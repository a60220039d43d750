"""``smoothinfer leaderboard``: one protocol, a card for each model, one table for all of them."""

import copy
import shlex

import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import save_file

from smoothinfer.cli import _parser, main
from smoothinfer.reporting.attack_names import short_attack
from smoothinfer.reporting.board import read_board
from smoothinfer.runtime.files import read_json, write_json
from smoothinfer.workflows.leaderboard import _command, _epochs, _passes_of_an_image

ENTRIES = {
    "static": {"model": "tests.conftest:line"},
    "random": {
        "model": "tests.conftest:noisy_line",
        "claim": {"text": "99 % under PGD", "value": 0.99, "source": "a paper"},
        "note": "by its <authors>",
    },
    "defended": {"model": "tests.conftest:line", "defence": "random_precision(bits=[2, 3])"},
    "mixed": {
        "model": "tests.conftest:line",
        "others": ["tests.conftest:line"],
        "defence": "mixture",
    },
}


def recipe(folder, **changes):
    content = {"data": "digits", "limit": 12, "dear_limit": 8, "budget": "quick", "samples": 12}
    content |= {"ball": {"name": "linf", "radius": 0.1}, "entries": ENTRIES} | changes
    (folder / "board.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "board.yaml")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    assert main(["leaderboard", recipe(folder), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_every_model_gets_a_card_with_the_three_numbers(out):
    cards = {path.stem: read_json(path) for path in (out / "cards").glob("*.json")}
    assert set(cards) == set(ENTRIES)
    for name, card in cards.items():
        assert card["random"] == (name in ("random", "defended"))
        attacks = {each["attack"] for each in card["standings"]}
        assert attacks >= {"none", "standard(budget='quick')"}
        assert ("one_draw(steps=20)" in attacks) == card["random"]
        assert card["worst case"]["images"] == 8
        assert 0 <= card["worst"]["value"] <= card["mean"]["value"] <= 1
        words = shlex.split(card["commands"][0])
        assert words[words.index("--only") + 1] == name
        assert card["limits"] == [12, 8]
    clean = next(each for each in cards["static"]["standings"] if each["attack"] == "none")
    assert clean["vote"]["images"] == 12


def test_the_command_of_a_card_can_be_repeated_where_the_code_was_trusted(tmp_path):
    told = []
    for more in ([], ["--trust-code"]):
        options = _parser(words := ["leaderboard", "b.yaml", "--out", "o", *more])[0]
        told.append(shlex.split(_command(options.parse_args(words), "a")))
    assert "--trust-code" not in told[0]
    assert "--trust-code" in told[1]
    assert _parser(told[1][1:])[0].parse_args(told[1][1:]).only == ["a"]


def test_the_worst_case_is_no_better_than_any_attack_on_the_same_images(out):
    for path in (out / "cards").glob("*.json"):
        card = read_json(path)
        under = next(each for each in card["standings"] if each["attack"] == card["strongest"])
        assert card["worst case"]["value"] <= under["vote"]["value"]


def test_the_table_is_sorted_and_written_in_every_format(out):
    shares = [card["worst case"]["value"] for card in read_board(out / "cards").cards]
    assert shares == sorted(shares, reverse=True)
    page, text, latex = (
        (out / f"leaderboard.{kind}").read_text() for kind in ("html", "md", "tex")
    )
    for name in ENTRIES:
        assert name in page
        assert name in text
        assert name in latex
    assert "99 % under PGD" in text
    assert "<authors>" not in page  # a stranger's words are no element
    assert (out / "leaderboard.png").stat().st_size > 1000


def test_a_board_resumes_and_only_makes_a_part(out, tmp_path, monkeypatch, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("entries/*/rows/*")}
    assert main(["leaderboard", recipe(tmp_path), "--only", "random", "--out", str(out)]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("entries/*/rows/*")}
    assert before == after  # nothing was computed again
    assert "1 of 1: random" in capsys.readouterr().out


def test_other_peoples_cards_stand_in_the_table(out, tmp_path):
    card = read_json(out / "cards" / "random.json") | {"name": "theirs"}
    write_json(tmp_path / "theirs.json", card)
    write_json(tmp_path / "ours.json", read_json(out / "cards" / "static.json"))
    names = [each["name"] for each in read_board(tmp_path).cards]
    assert sorted(names) == ["static", "theirs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worst case": {"value": 2.0, "low": 0, "high": 1, "images": 3}}, "worst case, value"),
        ({"standings": []}, "no standing under"),
        ({"samples": 99}, "do not compare"),
        ({"data hash": "other"}, "do not compare"),
        ({"limits": [12, 12]}, "do not compare"),
        ({"limits": []}, "images of cheap and of dear attacks"),
        ({"strongest": "none"}, "do not compare"),
        ({"random": "yes"}, "random must be true or false"),
        ({"mean": {"value": 0.1, "low": 0.2, "high": 1.0, "images": 3}}, "outside of its own"),
        ({"mean": {"value": 0.1, "low": 0.0, "high": 1.0, "images": 0}}, "images must be at"),
        ({"commands": "rm -rf"}, "commands must be a list"),
    ],
)
def test_cards_that_lie_or_do_not_compare_are_refused(out, tmp_path, change, message):
    card = read_json(out / "cards" / "random.json")
    write_json(tmp_path / "a.json", card)
    write_json(tmp_path / "b.json", copy.deepcopy(card) | change)
    with pytest.raises(ValueError, match=message):
        read_board(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entries": {"../x": ENTRIES["static"]}}, "name of a file"),
        ({"entries": {}}, "no entries"),
        ({"entries": {"x": {"model": "none"}}}, "no model 'none'"),
        ({"entries": {"x": {"mode": "none"}}}, "entries: x"),
        ({"entries": {"x": {**ENTRIES["static"], "defence": "none"}}}, "unknown defence"),
        ({"entries": {"x": {**ENTRIES["static"], "claim": {"text": "x"}}}}, "entries: x: claim"),
        ({"samples": 9}, "at least 10"),
        ({"dear_limit": 0}, "at least 1"),
        ({"entries": {"x" * 300: ENTRIES["static"]}}, "at most 60 letters"),
        ({"entries": {"x\0": ENTRIES["static"]}}, "name of a file"),
        ({"entries": {"x": {"model": "a", "others": ["b"]}}}, "takes several networks"),
        ({"budget": "huge"}, "unknown budget"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_work(tmp_path, capsys, changes, message):
    assert main(["leaderboard", recipe(tmp_path, **changes), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_entry_is_refused(tmp_path, capsys):
    line = ["leaderboard", recipe(tmp_path), "--only", "nobody", "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "no entry 'nobody'" in capsys.readouterr().err


def test_attacks_have_short_names():
    assert short_attack("none") == "clean"
    assert short_attack("one_draw(steps=20)") == "one draw"
    assert short_attack("pgd(steps=20, draws=1)") == "PGD-20"
    assert short_attack("examples(file='a.pt')") == "examples (a.pt)"


def test_a_board_that_does_not_compare_is_refused_before_any_work(out, tmp_path, capsys):
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    other = recipe(tmp_path, samples=13)
    assert main(["leaderboard", other, "--only", "random", "--out", str(out)]) == 2
    assert "this recipe judges with 13" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before


def test_passes_of_an_image_count_each_attack_over_its_own_images():
    rows = {"attack": ["none", "none", "dear"], "forwards": [0, 0, 10], "backwards": [0, 0, 5]}
    assert _passes_of_an_image(pa.table(rows)) == 20.0


def test_a_network_from_a_plain_state_dict_has_the_epochs_of_its_training(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "mine.safetensors")
    assert _epochs(str(tmp_path / "mine.safetensors")) is None


def test_an_audit_is_kept_with_its_entry(tmp_path, monkeypatch):
    words = ["leaderboard", recipe(tmp_path), "--only", "static", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("smoothinfer.workflows.leaderboard._AUDITED", 8)
    assert main([*words, "--set", "audit=true"]) == 0
    card = read_json(tmp_path / "out" / "cards" / "static.json")
    assert card["audit"]
    assert "audit=true" in card["commands"][0]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("audit/*.json")}
    assert kept
    assert main([*words, "--set", "audit=true"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
