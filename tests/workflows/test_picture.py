"""Pictures of a model and its votes, and the numbers in them."""

import json

import pytest

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.workflows.picture import draw_picture
from tests.conftest import noisy_line

ARGUMENTS = ["tests.conftest:noisy_line", "--data", "digits", "--limit", "12"]
PGD = {"pgd": si.pgd}


def drawn(kind, out, *more):
    assert main(["picture", kind, *ARGUMENTS, "--out", str(out), *more]) == 0
    assert (out / f"{kind}.png").stat().st_size > 5000
    return json.loads((out / f"{kind}.json").read_text())


def test_votes_are_those_of_512_passes(tmp_path):
    found = drawn("votes", tmp_path, "--attack", "pgd(steps=2)")
    assert all(sum(row) == 512 for name in ("clean", "attacked") for row in found[name])
    assert found["clean"] != found["attacked"]


def test_the_cost_holds_passes_and_the_front(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothinfer.workflows.picture._COUNTS", (1, 16, 64))
    attacks = ("pgd", "pgd(steps=2, draws=2)")
    found = drawn("cost", tmp_path, "--radius", "0.05", "--attack", *attacks)["curves"]
    assert [point["clean passes"] for point in found["fixed"]] == [1, 16, 64]
    points = [point for points in found.values() for point in points]
    for attack in attacks:
        for stop in ("exact", "ppr"):
            for point in found[stop]:
                assert point[f"{attack} passes"] <= point["samples"]
        # Exact stopping gives the same answers.
        assert [p[attack] for p in found["exact"]] == [p[attack] for p in found["fixed"][1:]]
        front = [point for point in points if point[f"front {attack} passes"]]
        assert max(point[attack] for point in front) == max(point[attack] for point in points)
        for one in front:
            for other in points:
                less = other[f"{attack} passes"] <= one[f"{attack} passes"]
                assert not (less and other[attack] > one[attack])


def test_a_killed_cost_goes_on_from_its_examples_and_points(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothinfer.workflows.picture._COUNTS", (1, 16))
    data, voted = si.load_data("digits", "test", 12), []
    original = SmoothedClassifier.predict

    def predict(self, images, **how):
        if len(voted) == 7:  # a point takes three votes each of clean and attacked images
            raise KeyboardInterrupt
        voted.append(how["stop"])
        return original(self, images, **how)

    monkeypatch.setattr(SmoothedClassifier, "predict", predict)
    task = "cost", noisy_line(), data, PGD, si.Linf(0.05), tmp_path
    with pytest.raises(KeyboardInterrupt):
        draw_picture(*task)
    first = json.loads((tmp_path / "points" / "fixed-1.json").read_text())["result"]
    (made,) = (tmp_path / "crafted").iterdir()
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(SmoothedClassifier, "predict", original)
    found = draw_picture(*task)["curves"]
    assert [file.stat().st_mtime_ns for file in (tmp_path / "crafted").iterdir()] == [before]
    assert [point["samples"] for point in found["fixed"]] == [1, 16]
    assert all(found["fixed"][0][name] == value for name, value in first.items())
    changed = draw_picture(*task, seed=1)["curves"]  # another seed is other work
    assert len(list((tmp_path / "crafted").iterdir())) == 2
    assert changed["fixed"][0]["clean milliseconds"] != found["fixed"][0]["clean milliseconds"]


def test_gradients_are_painted_with_and_without_noise(tmp_path):
    found = drawn("gradients", tmp_path, "--norm", "l2", "--radius", "2")
    assert found["radius"] == 2
    assert len(found["targets"]) == 6


def test_the_noise_of_each_layer_is_drawn(tmp_path):
    with si.isolated_rng(0):
        net = si.smallnet()
    noisy = si.NoisyModel(net, inputs=si.PNI(), weights=si.PNI(alpha=0.5), shape=(1, 8, 8)).eval()
    data = si.load_data("digits", "test", 4)
    found = draw_picture("noise", noisy, data, PGD, si.Linf(0.1), tmp_path)["strengths"]
    assert found["inputs"] == pytest.approx(0.25)
    assert sum(value == pytest.approx(0.5) for value in found.values()) == len(found) - 1 > 2
    assert (tmp_path / "noise.png").stat().st_size > 5000
    with pytest.raises(si.InputError, match="no learned noise"):
        draw_picture("noise", noisy_line(), data, PGD, si.Linf(0.1), tmp_path)


def test_what_cannot_be_drawn_is_refused(tmp_path, capsys):
    given = ["picture", "gradients", "tests.conftest:line", *ARGUMENTS[1:]]
    assert main([*given, "--out", str(tmp_path)]) == 2
    assert "its noise on and off" in capsys.readouterr().err
    data = si.load_data("digits", "test", 4)
    with pytest.raises(si.InputError, match="shows one attack, not pgd, again"):
        draw_picture("votes", noisy_line(), data, {**PGD, "again": si.pgd}, si.Linf(0.1), tmp_path)
    with pytest.raises(si.InputError, match="unknown picture 'vote'"):
        draw_picture("vote", noisy_line(), data, PGD, si.Linf(0.1), tmp_path)
