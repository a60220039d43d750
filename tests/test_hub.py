"""Models saved and fetched the Hugging Face way."""

import json

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main


def pixels():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def logits(model):
    """What one draw of the noise answers."""
    return model.member(0, 0)(pixels())


def test_a_model_is_saved_and_loaded_the_hugging_face_way(tiny_run, tmp_path):
    model = si.HubModel.from_pretrained(tiny_run)
    assert not model.training
    assert torch.equal(logits(model), logits(si.load(tiny_run)))
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"model.safetensors", "model.json", "README.md"} <= names
    again = si.HubModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))
    assert again.card == model.card
    si.SmoothedClassifier(again, samples=4).predict(pixels())


def test_tampered_weights_are_refused(tiny_run, tmp_path):
    si.HubModel.from_pretrained(tiny_run).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(si.InputError, match="SHA-256"):
        si.HubModel.from_pretrained(tmp_path)


def test_models_come_from_the_hub_by_name(tiny_run, tmp_path, monkeypatch):
    si.HubModel.from_pretrained(tiny_run).save_pretrained(tmp_path / "me" / "mine")

    def download(repo_id, filename, **_):
        if not (tmp_path / repo_id / filename).exists():
            raise FileNotFoundError(filename)
        return str(tmp_path / repo_id / filename)

    for place in ("huggingface_hub", "huggingface_hub.hub_mixin"):
        monkeypatch.setattr(f"{place}.hf_hub_download", download)
    assert torch.equal(logits(si.load("hf:me/mine")), logits(si.load(tiny_run)))
    assert torch.equal(logits(si.HubModel.from_pretrained("me/mine")), logits(si.load(tiny_run)))
    with pytest.raises(si.InputError, match="cannot fetch 'me/other'"):
        si.load("hf:me/other")


def test_changed_weights_lose_their_figures(tiny_run, tiny_results, tmp_path):
    path = si.publish(tiny_run, "one", tmp_path, [tiny_results])
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
    assert after["changed_from"] == model.card["sha256"]
    assert "Nothing was measured" in model.generate_model_card().text


def test_what_is_no_model_for_the_hub_is_refused(tmp_path):
    with pytest.raises(si.InputError, match="no folder and no user/name"):
        si.HubModel.from_pretrained("runs/no/such")
    with pytest.raises(si.InputError, match="from_checkpoint"):
        si.HubModel(si.smallnet(), inputs=si.Gaussian(0.1)).save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "../a", "x" * 200, "a\nb"])
def test_a_name_that_the_hub_cannot_have_is_refused_before_anything_is_written(
    name, tiny_run, tmp_path, capsys
):
    out = tmp_path / "out"
    command = ["publish", str(tiny_run), "--name", "net", "--hub", name, "--out", str(out)]
    assert main(command) == 2
    assert "is no name on the Hugging Face hub" in capsys.readouterr().err
    assert not out.exists()
