"""Models for others: published with their figures, saved and fetched the Hugging Face way."""

import json
import shutil

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.recipes import recipe_from
from tests.test_training import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "run"
    recipe = recipe_from(TINY | {"epochs": 1})
    si.train_run(recipe, si.load_data("digits", "train", 200), out)
    return out


@pytest.fixture(scope="module")
def results(run):
    out = run.parent / "results"
    given = ["evaluate", str(run), "--data", "digits", "--limit", "20", "--samples", "1", "4"]
    assert main([*given, "--attack", "fgsm", "--out", str(out)]) == 0
    return out


def pixels():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def logits(model):
    return model.member(0, 0)(pixels())


def test_a_model_is_saved_and_loaded_the_hugging_face_way(run, tmp_path):
    model = si.HubModel.from_pretrained(run)
    assert not model.training
    assert torch.equal(logits(model), logits(si.load(run)))
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"model.safetensors", "model.json", "README.md"} <= names
    again = si.HubModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))
    assert again.card == model.card
    si.SmoothedClassifier(again, samples=4).predict(pixels())


def test_tampered_weights_are_refused(run, tmp_path):
    si.HubModel.from_pretrained(run).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(si.InputError, match="SHA-256"):
        si.HubModel.from_pretrained(tmp_path)


def test_models_come_from_the_hub_by_name(run, tmp_path, monkeypatch):
    si.HubModel.from_pretrained(run).save_pretrained(tmp_path / "me" / "mine")

    def download(repo_id, filename, **_):
        if not (tmp_path / repo_id / filename).exists():
            raise FileNotFoundError(filename)
        return str(tmp_path / repo_id / filename)

    for place in ("huggingface_hub", "huggingface_hub.hub_mixin"):
        monkeypatch.setattr(f"{place}.hf_hub_download", download)
    assert torch.equal(logits(si.load("hf:me/mine")), logits(si.load(run)))
    assert torch.equal(logits(si.HubModel.from_pretrained("me/mine")), logits(si.load(run)))
    with pytest.raises(si.InputError, match="cannot fetch 'me/other'"):
        si.load("hf:me/other")


def test_a_published_model_tells_its_figures(run, results, tmp_path, capsys):
    given = ["publish", str(run), "--name", "tiny-digits", "--out", str(tmp_path)]
    assert main([*given, "--results", str(results)]) == 0
    assert (tmp_path / "tiny-digits.csv").read_text().startswith("epoch,loss")
    figures = json.loads((tmp_path / "tiny-digits.json").read_text())["figures"]
    assert [figure["description"]["samples"] for figure in figures] == [1, 4]
    assert torch.equal(logits(si.load(tmp_path / "tiny-digits.safetensors")), logits(si.load(run)))
    capsys.readouterr()
    assert main(["models", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "tiny-digits" in told
    assert "fgsm" in told
    assert f"{100 * figures[1]['clean']['value']:.1f}" in told


def test_publishing_again_keeps_figures_and_table(run, results, tmp_path):
    si.publish(run, "one", tmp_path, [results])
    si.publish(run, "one", tmp_path)
    si.publish(tmp_path / "one.safetensors", "two", tmp_path / "other")
    for path in (tmp_path / "one.json", tmp_path / "other" / "two.json"):
        figures = json.loads(path.read_text())["figures"]
        assert [figure["description"]["model"] for figure in figures] == [path.stem] * 2
        assert path.with_suffix(".csv").read_text().startswith("epoch,loss")
    told = si.HubModel.from_checkpoint(tmp_path / "one.safetensors").generate_model_card().text
    assert "| fgsm |" in told


def test_changed_weights_lose_their_figures(run, results, tmp_path):
    path = si.publish(run, "one", tmp_path, [results])
    model = si.HubModel.from_checkpoint(path)
    model.save_pretrained(tmp_path / "same")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path / "changed")
    before, after = (
        json.loads((tmp_path / name / "model.json").read_text()) for name in ("same", "changed")
    )
    assert before["figures"] == model.card["figures"]
    assert "figures" not in after
    assert "results" not in after
    assert after["trained_on_from"] == model.card["sha256"]
    assert "Nothing was measured" in model.generate_model_card().text


def test_a_compact_model_is_smaller_and_keeps_its_figures(run, results, tmp_path):
    whole = si.publish(run, "one", tmp_path / "whole", [results])
    short = si.publish(run, "one", tmp_path / "short", [results], compact=True)
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
    si.publish(run, "one", tmp_path / "short", compact=True)
    si.publish(short, "two", tmp_path / "short", [results])
    for name in ("one", "two"):
        card = json.loads((tmp_path / "short" / f"{name}.json").read_text())
        assert card["measured"] == cards[0]["sha256"]
        assert len(card["figures"]) == len(cards[0]["figures"])


def test_what_is_no_model_for_the_hub_is_refused(tmp_path):
    with pytest.raises(si.InputError, match="no folder and no user/name"):
        si.HubModel.from_pretrained("runs/no/such")
    with pytest.raises(si.InputError, match="from_checkpoint"):
        si.HubModel(si.smallnet(), inputs=si.Gaussian(0.1)).save_pretrained(tmp_path)


def test_results_of_other_weights_are_refused(run, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    settings = tmp_path / "results" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"sha256": "0"}))
    with pytest.raises(si.InputError, match="other weights"):
        si.publish(run, "tiny", tmp_path / "out", [tmp_path / "results"])
    assert not (tmp_path / "out").exists()
    sha = json.loads((run / "best.json").read_text())["sha256"]
    settings.write_text(json.dumps({"split": "validation", "sha256": sha}))
    with pytest.raises(si.InputError, match="measured on the validation images"):
        si.publish(run, "tiny", tmp_path / "out", [tmp_path / "results"])
    with pytest.raises(si.InputError, match="no run folder"):
        si.publish("some.module:factory", "tiny", tmp_path)
    with pytest.raises(si.InputError, match="no path"):
        si.publish(run, "../tiny", tmp_path)


def test_what_is_published_here_is_listed_here(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", str(run), "--name", "mine"]) == 0
    assert "mine" in si.list_models()
    assert torch.equal(logits(si.load("mine")), logits(si.load(run)))
    assert (tmp_path / "checkpoints" / "mine-noise.json").exists()
    assert main(["publish", "mine", "--name", "mine"]) == 0  # onto itself
