"""The command certify: certified accuracies, their curve, and predictions that may abstain."""

import json

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.workflows.certify import certify_images
from tests.conftest import images_at

MODEL = ["certify", "tests.conftest:line", "--data", "digits"]
GIVEN = [*MODEL, "--sigma", "0.25", "--samples", "64", "--skip", "60"]


def test_certify_writes_accuracies_and_their_curve(tmp_path, capsys):
    assert main([*GIVEN, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "certified.json").read_text())
    assert written["images"] == 6
    assert len(written["certified accuracy"]) == 9
    assert (tmp_path / "certified.png").stat().st_size > 1000
    assert "average radius" in capsys.readouterr().out
    assert "arXiv 2205.07069" in written["note"]


def test_certify_with_predict_abstains_where_it_is_not_sure(tmp_path, capsys):
    assert main([*GIVEN, "--predict", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "predicted.json").read_text())
    assert len(written["predicted"]) == 6
    assert written["abstained"] == written["predicted"].count(si.ABSTAIN)
    assert f"abstained on {written['abstained']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--radius", "0.1"], "--predict finds no radius"),
        (["--selection", "9"], "--predict finds no radius"),
        (["--samples", "0"], "samples must be at least 1"),
    ],
)
def test_options_that_do_not_suit_a_prediction_are_refused(more, message, tmp_path, capsys):
    assert main([*GIVEN, "--predict", "--out", str(tmp_path), *more]) == 2
    assert message in capsys.readouterr().err


def test_noise_without_a_theorem_is_refused(tmp_path, capsys):
    for sigma in ([], ["--sigma", "0"]):
        assert main([*MODEL, *sigma, "--out", str(tmp_path / "none")]) == 2
        assert "only a NoisyModel" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_tested_radius_is_reached(noisy_pixel, tmp_path):
    pixels = (images_at([0.4] * 8) * 255).round().to(torch.uint8)
    data = si.ImageData("line", pixels, torch.ones(8, dtype=torch.int64), ("left", "right"))
    found = certify_images(noisy_pixel, data, tmp_path, 2, 0, 8 / 255, samples=400)
    assert found["images"] == 4
    accuracy = [(each["radius"], each["value"]) for each in found["certified accuracy"]]
    assert accuracy == [(8 / 255, 1.0)]
    assert found["average radius"] is None
    assert not (tmp_path / "certified.png").exists()  # one radius is no curve


def test_a_radius_on_the_command_line_is_tested(tmp_path):
    given = [*MODEL, "--sigma", "0.25", "--limit", "2", "--samples", "400", "--radius", "8/255"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "certified.json").read_text())
    assert [each["radius"] for each in written["certified accuracy"]] == [8 / 255]
    assert written["average radius"] is None
