import json
import shutil

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.recipes import recipe_from
from smoothinfer.runtime.files import read_json, write_json
from tests.conftest import TINY


def pixels():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def logits(model):
    """What one draw of the noise answers."""
    return model.member(0, 0)(pixels())


def test_a_published_model_shows_its_figures(tiny_run, tiny_results, tmp_path, capsys):
    command = ["publish", str(tiny_run), "--name", "tiny-digits", "--out", str(tmp_path)]
    assert main([*command, "--results", str(tiny_results)]) == 0
    assert (tmp_path / "tiny-digits.csv").read_text().startswith("epoch,loss")
    figures = json.loads((tmp_path / "tiny-digits.json").read_text())["figures"]
    assert [figure["description"]["samples"] for figure in figures] == [1, 4]
    assert torch.equal(
        logits(si.load(tmp_path / "tiny-digits.safetensors")), logits(si.load(tiny_run))
    )
    capsys.readouterr()
    assert main(["models", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "tiny-digits" in printed
    assert "FGSM" in printed
    assert f"{100 * figures[1]['clean']['value']:.1f}" in printed


def test_publishing_again_keeps_figures_and_table(tiny_run, tiny_results, tmp_path):
    si.publish(tiny_run, "one", tmp_path, [tiny_results])
    si.publish(tiny_run, "one", tmp_path)
    si.publish(tmp_path / "one.safetensors", "two", tmp_path / "other")
    for path in (tmp_path / "one.json", tmp_path / "other" / "two.json"):
        figures = json.loads(path.read_text())["figures"]
        assert [figure["description"]["model"] for figure in figures] == [path.stem] * 2
        assert path.with_suffix(".csv").read_text().startswith("epoch,loss")
    printed = si.HubModel.from_checkpoint(tmp_path / "one.safetensors").generate_model_card().text
    assert "| fgsm |" in printed


def test_a_compact_model_is_smaller_and_keeps_its_figures(tiny_run, tiny_results, tmp_path):
    whole = si.publish(tiny_run, "one", tmp_path / "whole", [tiny_results])
    short = si.publish(tiny_run, "one", tmp_path / "short", [tiny_results], compact=True)
    assert short.stat().st_size < whole.stat().st_size
    before, after = (si.load(path).state_dict() for path in (whole, short))
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        worst = 2**-11 if name.endswith(".factor") else 0.0  # half precision rounds to 11 bits
        assert torch.allclose(after[name].double(), tensor.double(), rtol=worst, atol=worst / 2**14)
    cards = [json.loads(path.with_suffix(".json").read_text()) for path in (whole, short)]
    assert cards[1]["measured"] == cards[0]["sha256"] != cards[1]["sha256"]
    assert cards[1]["figures"] == cards[0]["figures"]
    # Published once more, from the run or from itself, it loses nothing.
    si.publish(tiny_run, "one", tmp_path / "short", compact=True)
    si.publish(short, "two", tmp_path / "short", [tiny_results])
    for name in ("one", "two"):
        card = json.loads((tmp_path / "short" / f"{name}.json").read_text())
        assert card["measured"] == cards[0]["sha256"]
        assert len(card["figures"]) == len(cards[0]["figures"])


def edited(results, folder, **changes):
    """A copy of ``results`` whose summary was edited by somebody who knows about checksums."""
    shutil.copytree(results, folder)
    write_json(folder / "summary.json", read_json(folder / "summary.json") | changes)
    return folder


def test_results_of_other_weights_are_refused(tiny_run, tiny_results, tmp_path):
    other = edited(tiny_results, tmp_path / "other", weights={"run": "0"})
    with pytest.raises(si.InputError, match="other weights"):
        si.publish(tiny_run, "tiny", tmp_path / "out", [other])
    assert not (tmp_path / "out").exists()
    held_out = edited(tiny_results, tmp_path / "held out", split="validation")
    with pytest.raises(si.InputError, match="measured on the validation images"):
        si.publish(tiny_run, "tiny", tmp_path / "out", [held_out])
    with pytest.raises(si.InputError, match="no run folder"):
        si.publish("some.module:factory", "tiny", tmp_path)
    for name in ("../tiny", "", ".tiny"):
        with pytest.raises(si.InputError, match="no path"):
            si.publish(tiny_run, name, tmp_path)


def test_figures_that_the_rows_do_not_bear_out_are_refused(tiny_run, tiny_results, tmp_path):
    path = tiny_results / "summary.json"
    figures = json.loads(path.read_text())["settings"]
    figures[0]["clean"] |= {"value": 0.99, "high": 1.0}
    better = edited(tiny_results, tmp_path / "better", settings=figures)
    by_hand = tmp_path / "by hand"
    shutil.copytree(tiny_results, by_hand)
    text = path.read_text()
    (by_hand / "summary.json").write_text(text.replace('"forwards": ', '"forwards": 1'))
    for folder, message in (
        (better, "are not those of the rows"),
        (by_hand, r"summary\.json is damaged or was edited"),
    ):
        with pytest.raises(si.InputError, match=message):
            si.publish(tiny_run, "tiny", tmp_path / "out", [folder])
    (better / "table.parquet").write_bytes(b"rows")
    with pytest.raises(si.InputError, match=r"table\.parquet is not the table"):
        si.publish(tiny_run, "tiny", tmp_path / "out", [better])
    assert not (tmp_path / "out").exists()


def test_rows_of_another_model_under_this_ones_name_are_refused(
    tiny_run, tiny_results, digits, tmp_path
):
    si.train_run(recipe_from(TINY | {"epochs": 1, "seed": 5}), digits, tmp_path / "run")
    sha = json.loads((tmp_path / "run" / "best.json").read_text())["sha256"]
    borrowed = edited(tiny_results, tmp_path / "borrowed", weights={"run": sha})
    with pytest.raises(si.InputError, match="are of another model than"):
        si.publish(tmp_path / "run", "tiny", tmp_path / "out", [borrowed])


def test_a_later_run_in_the_folder_that_did_not_end_changes_no_figure(
    tiny_run, tiny_results, tmp_path
):
    shutil.copytree(tiny_results, tmp_path / "results")
    settings = tmp_path / "results" / "settings.json"
    write_json(settings, read_json(settings) | {"weights": {"other": "0"}})
    path = si.publish(tiny_run, "tiny", tmp_path / "out", [tmp_path / "results"])
    assert len(json.loads(path.with_suffix(".json").read_text())["figures"]) == 2


def test_weights_that_are_not_those_of_the_card_are_not_published(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    with (tmp_path / "run" / "best.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(si.InputError, match="is not the file of its card"):
        si.publish(tmp_path / "run", "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_published_here_is_listed_here(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", str(tiny_run), "--name", "mine"]) == 0
    assert "mine" in si.list_models()
    assert torch.equal(logits(si.load("mine")), logits(si.load(tiny_run)))
    assert (tmp_path / "checkpoints" / "mine-noise.json").exists()
    assert main(["publish", "mine", "--name", "mine"]) == 0  # onto itself


def certified(run, folder, *more):
    command = ["certify", str(run), "--data", "digits", "--sigma", "0.25", "--radii", "0", "0.1"]
    assert main([*command, "--samples", "64", "--skip", "60", *more, "--out", str(folder)]) == 0
    return folder


def test_certificates_are_published_with_the_model(tiny_run, tmp_path, capsys):
    folder = certified(tiny_run, tmp_path / "certified")
    path = si.publish(tiny_run, "tiny", tmp_path / "out", [folder])
    si.publish(tiny_run, "tiny", tmp_path / "out", [folder])
    card = json.loads(path.with_suffix(".json").read_text())
    (found,) = card["certified"]
    assert found["settings"]["model"] == "tiny"
    assert str(tmp_path) not in json.dumps(found)
    hub = si.HubModel.from_checkpoint(path)
    assert "certified accuracy, %" in hub.generate_model_card().text
    capsys.readouterr()
    assert main(["models", "tiny", "--folder", str(tmp_path / "out")]) == 0
    assert "certified accuracy, %" in capsys.readouterr().out
    assert main(["models", "--folder", str(tmp_path / "out"), "--format", "markdown"]) == 0
    listed = capsys.readouterr().out
    assert "| cert. 0.1 |" in listed
    assert "certified at radius 0.1, " in listed


def test_certificates_of_other_weights_or_splits_are_refused(tiny_run, tmp_path):
    folder = certified(tiny_run, tmp_path / "validation", "--split", "validation")
    with pytest.raises(si.InputError, match="measured on the validation images"):
        si.publish(tiny_run, "tiny", tmp_path / "out", [folder])
    folder = certified("tests.conftest:line", tmp_path / "line")
    with pytest.raises(si.InputError, match="certificates of other weights"):
        si.publish(tiny_run, "tiny", tmp_path / "out", [folder])
