"""The command certify: certified accuracies, their curve, and predictions that may abstain."""

import json

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.workflows.certify import certify_images
from tests.conftest import images_at, noisy_line

MODEL = ["certify", "tests.conftest:line", "--data", "digits"]
GIVEN = [*MODEL, "--sigma", "0.25", "--samples", "64", "--skip", "60"]


def test_certify_writes_accuracies_and_their_curve(tmp_path, capsys):
    assert main([*GIVEN, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "certified.json").read_text())
    assert written["images"] == 6
    assert len(written["certified accuracy"]) == 9
    assert (tmp_path / "certified.png").stat().st_size > 1000
    assert "passes of an image" in capsys.readouterr().out
    assert written["average radius"] is None
    assert "arXiv 2207.07209" in written["note"]
    with pytest.raises(si.InputError, match="holds certificates: their figures are in certified"):
        si.load_results(tmp_path)


def test_a_fixed_vote_gives_the_average_radius_and_the_shares_of_passes(tmp_path, capsys):
    assert main([*GIVEN, "--method", "fixed", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "certified.json").read_text())
    assert f"average radius {written['average radius']:.4f}" in capsys.readouterr().out
    shares = list(written["pA at least"].values())
    assert shares == sorted(shares, reverse=True)
    assert written["passes of an image"]["mean"] == 164


def test_certify_with_predict_abstains_where_it_is_not_sure(tmp_path, capsys):
    assert main([*GIVEN, "--predict", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "predicted.json").read_text())
    assert len(written["predicted"]) == 6
    assert written["abstained"] == written["predicted"].count(si.ABSTAIN)
    assert f"abstained on {written['abstained']} of 6 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--radii", "0.1"], "--predict finds no radius"),
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
        told = " ".join(capsys.readouterr().err.split())
        assert "only a NoisyModel" in told
        assert "not trained under it certifies next to nothing" in told
    assert not (tmp_path / "none").exists()


def test_a_tested_radius_is_reached(noisy_pixel, tmp_path):
    pixels = (images_at([0.4] * 8) * 255).round().to(torch.uint8)
    data = si.ImageData("line", pixels, torch.ones(8, dtype=torch.int64), ("left", "right"))
    how = {"radii": [8 / 255], "samples": 400}
    found = certify_images(noisy_pixel, data, tmp_path, 2, 0, **how)
    assert found["images"] == 4
    accuracy = [(each["radius"], each["value"]) for each in found["certified accuracy"]]
    assert accuracy == [(8 / 255, 1.0)]
    assert found["average radius"] is None


def test_radii_on_the_command_line_are_tested(tmp_path):
    given = [*MODEL, "--sigma", "0.25", "--limit", "2", "--samples", "400"]
    assert main([*given, "--radii", "8/255", "0", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "certified.json").read_text())
    assert [each["radius"] for each in written["certified accuracy"]] == [0, 8 / 255]


def test_radii_in_another_norm_go_through_the_ball_around(tmp_path, capsys):
    """64 pixels: an L-infinity radius r needs the L2 radius 8 r, an L1 radius r needs r."""
    given = [*MODEL, "--sigma", "0.25", "--limit", "20", "--samples", "400"]
    found = {}
    for norm, radius in (("l2", "0.16"), ("linf", "0.02"), ("l1", "0.16")):
        out = tmp_path / norm
        assert main([*given, "--radii", radius, "--norm", norm, "--out", str(out)]) == 0
        written = json.loads((out / "certified.json").read_text())
        found[norm] = written["certified accuracy"][0]["value"]
    assert len(set(found.values())) == 1
    assert "note: the certificates are of the L2 ball" in " ".join(capsys.readouterr().out.split())


def test_a_fixed_vote_is_judged_at_the_radii_that_were_asked_for(tmp_path):
    given = {"method": "fixed", "samples": 200, "selection": 20}
    model, data = noisy_line(), si.load_data("digits", "test", 12)
    found = {
        norm: certify_images(model, data, tmp_path / norm, 1, 0, radii=radii, norm=norm, **given)
        for norm, radii in {"l2": [0.0, 0.1, 50.0], "linf": [0.0, 0.1 / 8, 50.0 / 8]}.items()
    }
    l2, linf = ([each["value"] for each in f["certified accuracy"]] for f in found.values())
    assert l2 == linf
    assert l2[2] == 0.0
    assert found["linf"]["average radius"] * 8 == pytest.approx(found["l2"]["average radius"])


@pytest.mark.parametrize("model", ["tests.conftest:line", "tests.conftest:fresh_net"])
@pytest.mark.parametrize("more", [[], ["--predict"]])
def test_a_model_without_a_theorem_is_told_of_sigma(model, more, tmp_path, capsys):
    words = ["certify", model, "--data", "digits", "--limit", "2", "--out", str(tmp_path / "a")]
    assert main([*words, *more]) == 2
    assert "--sigma 0.25" in capsys.readouterr().err
